/** The ways through the pipeline by name, the planned one first and what it is compared with behind it. */

export interface Recipe {
  readonly name: string;
  readonly summary: string;
  /** `ladder`: deeper and deeper, as the plan asks for; `once`: to a share that a rule gives; `none`: not at all. */
  readonly cuts: 'ladder' | 'once' | 'none';
  /** Pruning method by which is cut. */
  readonly pruning: string;
  /** Quantization method; undefined where the weights stay as they are. */
  readonly quantization: string | undefined;
  /** Share of the learning that a cut model gets before its weights are rounded; the rounded model gets the rest. */
  readonly learnsCut: number;
  /** Whether the cut model is held against the original at values inside, too. */
  readonly hints: boolean;
}

export const COMPRESSION_METHODS: readonly Recipe[] = [
  {
    name: 'flow-compress',
    summary: 'cuts, bits and learning planned together from what was measured of the model',
    ...{ cuts: 'ladder', pruning: 'idap', quantization: 'faaq', learnsCut: 0.5, hints: true },
  },
  {
    name: 'sequential',
    summary: 'one after the other by rule: least filters by norm, learning, then one width for all weights',
    ...{ cuts: 'once', pruning: 'l1', quantization: 'uniform', learnsCut: 1, hints: false },
  },
  {
    name: 'prune-only',
    summary: 'cuts and learning, weights in float',
    ...{ cuts: 'ladder', pruning: 'idap', quantization: undefined, learnsCut: 1, hints: true },
  },
  {
    name: 'quantize-only',
    summary: 'bits and learning, nothing cut',
    ...{ cuts: 'none', pruning: 'idap', quantization: 'faaq', learnsCut: 0, hints: false },
  },
];

export function findRecipe(name: string): Recipe | undefined {
  return COMPRESSION_METHODS.find((recipe) => recipe.name === name);
}

/** How much of the learning comes before the rounding. @param cut whether anything has gone */
export function shareBeforeRounding({ learnsCut, quantization }: Recipe, cut: boolean): number {
  if (quantization === undefined) return 1;
  return cut ? learnsCut : 0;
}
