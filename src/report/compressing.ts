/** What the reports say about a compression, independent of the medium: limits, plan, states of the model, answers class by class. */
import {
  formatBits,
  formatWidth,
  formatBytes,
  formatCount,
  formatMetric,
  formatMetricAmount,
  formatShare,
  isLowerBetter,
  metricLabel,
  significant,
} from './format.js';
import type { Outcome, TextTable } from './pruning.js';
import { distanceHead, scoreNameOf, scoreText } from './quality.js';
import type {
  ComparedAnswers,
  CompressedLayer,
  CompressionLimits,
  CompressionStage,
  CompressReport,
  PlannedModel,
  Quality,
} from './report.js';
import { thinned } from './thinning.js';

/** `flow-compress, seed 7, target cpu`. */
export function compressionTitle({ method, seed, target }: CompressReport): string {
  return `${method}, seed ${seed}, target ${target}`;
}

/** Every limit, and whether it is kept to. */
export function limitOutcomes({ size, speed, drop }: CompressionLimits): Outcome[] {
  return [
    ...(size === undefined
      ? []
      : [
          {
            met: size.met,
            text: `Size ${said(size.met)}: ${formatBytes(size.achieved)}, at most ${formatBytes(size.requested)} asked for.`,
          },
        ]),
    ...(speed === undefined
      ? []
      : [
          {
            met: speed.met,
            text: `Speed ${said(speed.met)}: ${times(speed.achieved)} as fast at batch ${speed.batch}, ${times(speed.requested)} asked for.`,
          },
        ]),
    ...(drop === undefined ? [] : [{ met: drop.met, text: dropText(drop) }]),
  ];
}

const said = (met: boolean): string => (met ? 'met' : 'NOT met');
const times = (factor: number): string => `${significant(factor, 3)}x`;

function dropText({ metric, requested, achieved, met }: NonNullable<CompressionLimits['drop']>): string {
  const fell = achieved < 0 === isLowerBetter(metric);
  const change = `${metricLabel(metric)} on VAL ${fell ? 'fell' : 'rose'} by ${formatMetricAmount(metric, Math.abs(achieved))}`;
  return `Drop ${met ? 'kept to' : 'NOT kept to'}: ${change}, ${formatMetricAmount(metric, requested)} allowed.`;
}

/** What a plan is shown with. */
export interface ShownPlan extends Pick<CompressReport, 'plan' | 'measure'> {
  /** Of the original on VAL. */
  readonly original: Quality;
}

/** The models that were measured before anything learned. @param rows at most so many of them, those that were tried among them */
export function planTable({ plan, measure, original }: ShownPlan, rows = Infinity): TextTable {
  const shown = rows === Infinity ? plan : thinned(plan, ({ chosen }) => chosen, rows);
  const score = scoreNameOf([original, ...plan.map(({ quality }) => quality)]);
  const column = (head: string, cell: (one: PlannedModel) => string): string[] => [head, ...shown.map(cell)];
  const columns = [
    column('cut', ({ rung }) => (rung === 0 ? 'nothing' : String(rung))),
    column('params', ({ params }) => formatCount(params)),
    column('MACs', ({ macs }) => (macs === undefined ? '' : formatCount(macs))),
    column('bits', ({ bits }) => formatBits(bits)),
    column('file size', ({ bytes }) => formatBytes(bytes)),
    column('speed', ({ speedup }) => (speedup === undefined ? '' : times(speedup))),
    column(`VAL ${distanceHead(measure)}`, ({ quality }) => significant(quality.divergence, 3)),
    ...(score === undefined ? [] : [column(score, ({ quality }) => scoreText(quality, score) ?? '')]),
    column('', (one) => wordFor(one)),
  ].filter((cells) => cells.slice(1).some((cell) => cell !== ''));
  return { head: columns.map(([head]) => head), rows: shown.map((_, i) => columns.map((cells) => cells[i + 1])) };
}

function wordFor({ fits, tried, chosen }: PlannedModel): string {
  if (chosen) return 'chosen';
  if (tried !== undefined) return 'tried';
  return fits ? 'fits' : '';
}

/** What the plan is, for the line above its table. */
export const PLAN_CAPTION = 'Models that could be made, measured before anything learns.';

/** The model after every stage, on VAL; the last column is the number of updates. */
export function stateTable({ states, measure }: Pick<CompressReport, 'states' | 'measure'>): TextTable {
  const qualities = states.map(({ quality }) => quality);
  const columns = [
    column('stage', ({ name }) => STATES[name]),
    column('file size', ({ bytes }) => formatBytes(bytes)),
    column(distanceHead(measure), ({ quality }) => significant(quality.divergence, 3)),
    ...(['top1', 'agreement'] as const).flatMap((name) =>
      qualities.some((quality) => quality[name] !== undefined)
        ? [column(name === 'top1' ? 'top-1' : name, ({ quality }) => scoreText(quality, name) ?? '')]
        : [],
    ),
    column('updates', ({ updates }) => updates?.toLocaleString('en-US') ?? ''),
  ].filter((cells) => cells.slice(1).some((cell) => cell !== ''));
  return { head: columns.map(([head]) => head), rows: states.map((_, i) => columns.map((cells) => cells[i + 1])) };

  function column(head: string, cell: (state: CompressionStage) => string): string[] {
    return [head, ...states.map(cell)];
  }
}

/** What the model is called after a stage. */
export const STATES: Readonly<Record<CompressionStage['name'], string>> = {
  original: 'original',
  cut: 'cut and fitted',
  renewed: 'new weights',
  learned: 'learned',
  quantized: 'quantized',
  recovered: 'learned again',
};

export const STATES_CAPTION = 'The model after every stage, measured on VAL.';

/** Whether it may take the place of the original: how often it answers the same, in all and where it does so least. */
export function safetySentence({ answers }: Pick<CompressReport, 'answers'>): string | undefined {
  if (answers === undefined || answers.samples === 0) return undefined;
  const known = answers.classes.filter(({ samples }) => samples > 0);
  const alike = known.reduce((sum, { samples, agreement }) => sum + samples * agreement, 0);
  const all = `It gives the class of the original in ${share(alike / answers.samples)} of ${answers.samples.toLocaleString('en-US')} samples of TEST`;
  if (known.length < 2) return `${all}.`;
  const least = known.reduce((a, b) => (b.agreement < a.agreement ? b : a));
  return `${all}; least often where that is ${className(least)}: ${share(least.agreement)} of ${least.samples.toLocaleString('en-US')}.`;
}

const share = (value: number): string => formatMetric({ name: 'agreement', value });

type AnsweredClass = ComparedAnswers['classes'][number];

function className({ class: index, name }: Pick<AnsweredClass, 'class' | 'name'>): string {
  return name === undefined ? `class ${index}` : `${name}`;
}

/** @param rows at most so many, those that agree least */
export function classTable({ classes }: ComparedAnswers, rows = Infinity): TextTable {
  const least = new Set([...classes].sort((a, b) => a.agreement - b.agreement).slice(0, rows));
  const shown = classes.filter((one) => least.has(one));
  const labelled = shown.some((one) => one.labelled !== undefined);
  return {
    head: ['class', 'answers of the original', 'agreement', ...(labelled ? ['labels', 'right before', 'after'] : [])],
    rows: shown.map((one) => [
      className(one),
      one.samples.toLocaleString('en-US'),
      one.samples === 0 ? '' : share(one.agreement),
      ...(labelled
        ? [
            one.labelled?.samples.toLocaleString('en-US') ?? '',
            one.labelled === undefined ? '' : share(one.labelled.before),
            one.labelled === undefined ? '' : share(one.labelled.after),
          ]
        : []),
    ]),
  };
}

export const WORST_CAPTION = 'Where the answers differ most, by the place of the sample in TEST, counted from 0.';

export function worstTable({ worst, classes }: ComparedAnswers): TextTable {
  const names = new Map(classes.map((one) => [one.class, className(one)]));
  const nameOf = (index: number): string => (index < 0 ? 'no number' : (names.get(index) ?? `class ${index}`));
  const answer = ({ class: index, probability }: { class: number; probability: number }): string =>
    `${nameOf(index)} (${formatShare(probability)})`;
  const labelled = worst.some(({ label }) => label !== undefined);
  return {
    head: ['sample', ...(labelled ? ['label'] : []), 'original', 'compressed', 'KL'],
    rows: worst.map(({ index, label, original, compressed, divergence }) => [
      index.toLocaleString('en-US'),
      ...(labelled ? [label === undefined ? '' : nameOf(label)] : []),
      answer(original),
      answer(compressed),
      divergence === undefined ? '' : significant(divergence, 3),
    ]),
  };
}

export const LAYERS_HEAD = ['layer', 'op', 'channels', 'params', 'bits', 'execution', 'bytes'];

export function layerCells({ name, op, channels, params, bits, format, execution, bytes }: CompressedLayer): string[] {
  const change = (values: { before: number; after: number }, show: (value: number) => string): string =>
    values.before === values.after ? show(values.before) : `${show(values.before)} → ${show(values.after)}`;
  return [
    name,
    op,
    change(channels, (value) => value.toLocaleString('en-US')),
    change(params, formatCount),
    bits === undefined ? '' : formatWidth({ bits, format }),
    execution ?? 'removed',
    change(bytes, formatBytes),
  ];
}

/** Learning of the cut model and of the rounded one, each as a report of its own would have it. */
export function learnings({ learning, recovery }: Pick<CompressReport, 'learning' | 'recovery'>): {
  command: 'prune' | 'quantize';
  title: string;
  recovery: NonNullable<CompressReport['recovery']>;
}[] {
  return [
    ...(learning === undefined
      ? []
      : [{ command: 'prune' as const, title: 'Learning of the cut model', recovery: learning }]),
    ...(recovery === undefined
      ? []
      : [{ command: 'quantize' as const, title: 'Learning of the rounded model', recovery }]),
  ];
}
