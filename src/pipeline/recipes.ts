/** The ways through the pipeline by name, as lists of stages: the planned one first, what it is compared with behind it. */
import type { TeachingName } from '../recovery/teachings.js';

/**
 * What is done to a model, in order.
 *
 * `cut`: `ladder`, deeper and deeper, as the plan asks for; `joint`, once, to where cuts and bits harm alike; `rule`, once, to a share that a rule gives; `to-size`, until its file keeps
 * to the limits. `renew`: weights are drawn anew. `learn`: so much of all learning, by this teaching. `quantize`: by this method.
 */
export type Stage =
  | { readonly kind: 'cut'; readonly how: 'ladder' | 'joint' | 'rule' | 'to-size'; readonly pruning: string }
  | { readonly kind: 'renew' }
  | { readonly kind: 'learn'; readonly share: number; readonly teaching: TeachingName }
  | { readonly kind: 'quantize'; readonly method: string };

export type CutStage = Extract<Stage, { kind: 'cut' }>;
export type LearnStage = Extract<Stage, { kind: 'learn' }>;

export interface Recipe {
  readonly name: string;
  readonly summary: string;
  readonly stages: readonly Stage[];
}

const cut = (how: CutStage['how'], pruning = 'l1'): Stage => ({ kind: 'cut', how, pruning });
const planned = cut('ladder', 'idap');
const renew: Stage = { kind: 'renew' };
const learn = (teaching: TeachingName, share = 1): Stage => ({ kind: 'learn', share, teaching });
const quantize = (method: string): Stage => ({ kind: 'quantize', method });

export const COMPRESSION_METHODS: readonly Recipe[] = [
  {
    name: 'flow-compress',
    summary: 'cuts, bits and learning planned together from what was measured of the model',
    stages: [planned, learn('hints', 0.25), quantize('faaq'), learn('answers', 0.75)],
  },
  {
    name: 'joint',
    summary: 'as flow-compress, but cut once: to where a byte less by cuts does as much harm as by bits (needs a size)',
    stages: [cut('joint', 'idap'), learn('hints', 0.25), quantize('faaq'), learn('answers', 0.75)],
  },
  {
    name: 'sequential',
    summary: 'one after the other by rule: least filters by norm, distillation, then one width for all weights',
    stages: [cut('rule'), learn('kd'), quantize('uniform')],
  },
  {
    name: 'prune-qat',
    summary: 'least filters by norm, training, one width for all weights, training as rounded (LSQ)',
    stages: [cut('rule'), learn('labels', 0.5), quantize('uniform'), learn('labels', 0.5)],
  },
  {
    name: 'kd-ptq',
    summary: 'a narrower network with new weights by rule, distilled, then one width for all weights',
    stages: [cut('rule'), renew, learn('kd'), quantize('uniform')],
  },
  {
    name: 'distill-ptq',
    summary: 'a network with new weights so narrow that 8 bits keep to the limits, distilled, then static INT8',
    stages: [cut('to-size'), renew, learn('kd'), quantize('static-int8')],
  },
  {
    name: 'prune-only',
    summary: 'cuts and learning, weights in float',
    stages: [planned, learn('hints')],
  },
  {
    name: 'quantize-only',
    summary: 'bits and learning, nothing cut',
    stages: [quantize('faaq'), learn('answers')],
  },
  {
    name: 'distill-only',
    summary: 'a network with new weights so narrow that its file keeps to the limits, distilled, weights in float',
    stages: [cut('to-size'), renew, learn('kd')],
  },
];

export function findRecipe(name: string): Recipe | undefined {
  return COMPRESSION_METHODS.find((recipe) => recipe.name === name);
}

export function cutOf({ stages }: Recipe): CutStage | undefined {
  return stages.find((stage) => stage.kind === 'cut');
}

/** Name of the quantization method; undefined where the weights stay as they are. */
export function quantizerOf({ stages }: Recipe): string | undefined {
  return stages.find((stage) => stage.kind === 'quantize')?.method;
}

export function renews({ stages }: Recipe): boolean {
  return stages.some(({ kind }) => kind === 'renew');
}

/** What takes the place of a recipe's own. */
export interface Replacements {
  readonly quantizer?: string | undefined;
  readonly teaching?: TeachingName | undefined;
}

/** The recipe with another quantizer, and with another teaching in all of its learning. */
export function withReplaced(recipe: Recipe, { quantizer, teaching }: Replacements): Recipe {
  const stages = recipe.stages.map((stage): Stage => {
    if (stage.kind === 'quantize' && quantizer !== undefined) return { ...stage, method: quantizer };
    if (stage.kind === 'learn' && teaching !== undefined) return { ...stage, teaching };
    return stage;
  });
  return { ...recipe, stages };
}

/** What is done to a model of which nothing was cut: there is nothing to learn before the rounding, and all learning follows it. */
export function stagesOf({ stages }: Recipe, isCut: boolean): readonly Stage[] {
  const rounding = stages.findIndex(({ kind }) => kind === 'quantize');
  if (isCut) return stages;
  const rest = stages.filter(({ kind }, i) => kind === 'quantize' || (kind === 'learn' && i > rounding));
  const share = rest.reduce((sum, stage) => sum + (stage.kind === 'learn' ? stage.share : 0), 0);
  return rest.map((stage) => (stage.kind === 'learn' ? { ...stage, share: stage.share / share } : stage));
}

/** How a recipe goes, in a line. */
export function shownStages({ stages }: Recipe): string {
  return stages
    .map((stage) => {
      switch (stage.kind) {
        case 'cut':
          return `cut ${stage.pruning}`;
        case 'renew':
          return 'renew';
        case 'learn':
          return `learn ${stage.teaching}${stage.share < 1 ? ` (${String(Math.round(100 * stage.share))} %)` : ''}`;
        case 'quantize':
          return `quantize ${stage.method}`;
      }
    })
    .join(', ');
}
