/** Options of `prune`. */
import { z } from 'zod';
import {
  augment,
  dataOptionsSchema,
  isOneOf,
  path,
  positiveInteger,
  resumable,
  RESUME_NEEDS_DIR,
  unknownName,
} from '../options.js';
import { hintsAreWeighed, taught, WEIGHT_BELONGS_TO_HINTS } from '../recover/options.js';
import type { RunControl } from '../../progress.js';
import { findPruningMethod, PRUNING_METHODS, type PruningMethod } from '../../pruning/methods.js';
import { ORDERS } from '../../pruning/removal-order.js';
import { SCORE_NAMES } from '../../pruning/scores.js';

/** What a pruned model may lose: filters (units of dependency groups), layers (residual branches, layers that a projection stands for), in which order. */
export const PRUNING_STAGES = ['joint', 'filters', 'layers', 'filters-layers', 'layers-filters'] as const;

export const pruneOptionsSchema = dataOptionsSchema
  .extend({
    ...resumable,
    output: path,
    force: z.boolean().default(false),
    calibSamples: positiveInteger.default(1024),
    /** Samples per update. */
    batchSize: positiveInteger.default(128),
    method: z
      .string()
      .default('idap')
      .refine(
        (name) => PRUNING_METHODS.some((method) => method.name === name),
        unknownName('method', () => PRUNING_METHODS.map(({ name }) => name)),
      ),
    /** Share of the original's cost that is to go; half when `maxDrop` is absent too. */
    reduce: z.number().gt(0).lt(1).optional(),
    of: z.enum(['macs', 'params', 'latency']).default('macs'),
    /** Share of single weights that go, with a method that removes these; 0.9 when absent. */
    sparsity: z.number().gt(0).lt(1).optional(),
    /** Largest fall of the metric on VAL, in its units. */
    maxDrop: z.number().gt(0).optional(),
    /** What filters are ranked by; as the method does when absent. */
    score: z.enum(SCORE_NAMES).optional(),
    /** Whether filters that score lowest go first or, as a check of the score, highest. */
    order: z.enum(ORDERS).default('lowest'),
    stages: z.enum(PRUNING_STAGES).default('joint'),
    /** Cuts on the way to the goal; as many as it asks for when absent. */
    cuts: positiveInteger.max(50).optional(),
    /** Widths are left a multiple of this; when absent of the channels that the machine's convolution kernels compute at a time. */
    align: positiveInteger.max(256).optional(),
    /** CALIB samples on which single cuts are measured. */
    probeSamples: positiveInteger.default(256),
    epochs: positiveInteger.optional(),
    /** Updates in which the pruned model learns from the original; 0 for none. */
    steps: z.number().int().min(0).optional(),
    /** Seconds of learning. */
    maxTime: z.number().positive().optional(),
    /** Share of its own size by which a weight moves per update; when absent 0.03 for networks of convolutions, 0.001 for others. */
    lr: z.number().positive().max(1).optional(),
    ...taught,
    augment,
    bestEffort: z.boolean().default(false),
    remeasure: z.boolean().default(false),
    latencyRuns: positiveInteger.optional(),
  })
  .refine((options) => !options.resume || options.runDir !== undefined, RESUME_NEEDS_DIR)
  .refine(hintsAreWeighed, WEIGHT_BELONGS_TO_HINTS)
  .refine(
    ({ teaching, method }) => isOneOf(['hints', 'answers'], teaching ?? 'hints') || kindOf(method) === 'structured',
    {
      message:
        'is taught after a cut: methods that remove single weights or learn before they cut take hints or answers',
      path: ['teaching'],
    },
  )
  .refine((options) => options.sparsity === undefined || removesWeights(options.method), {
    message: `belongs to methods that remove single weights: ${PRUNING_METHODS.filter(({ kind }) => kind === 'weights')
      .map(({ name }) => name)
      .join(', ')}`,
    path: ['sparsity'],
  })
  .refine((options) => options.reduce === undefined || !removesWeights(options.method), {
    message: 'belongs to methods that remove filters and layers; single weights go by --sparsity',
    path: ['reduce'],
  })
  .refine((options) => options.order === 'lowest' || !removesWeights(options.method), {
    message: 'belongs to methods that remove filters',
    path: ['order'],
  })
  .superRefine((options, { addIssue }) => {
    if (kindOf(options.method) !== 'shrinking') return;
    for (const [option, message] of unfitForShrinking(options)) addIssue({ code: 'custom', path: [option], message });
  });

const kindOf = (method: string): PruningMethod['kind'] | undefined => findPruningMethod(method)?.kind;

function removesWeights(method: string): boolean {
  return kindOf(method) === 'weights';
}

/** Options that say how cuts are chosen and judged, which methods that learn before they cut have settled by then. */
function* unfitForShrinking(
  options: Partial<z.input<typeof pruneOptionsSchema>>,
): Generator<readonly [option: string, reason: string]> {
  const { maxDrop, of, score, order, cuts, stages, steps } = options;
  const shrinking = 'methods that learn before they cut (sfp, swd)';
  if (maxDrop !== undefined) yield ['maxDrop', `${shrinking} take a share of the cost only: give --reduce`];
  if (of === 'latency')
    yield ['of', `${shrinking} choose filters before there is anything to time: take macs or params`];
  if (score !== undefined) yield ['score', `${shrinking} go by the norms of the filters`];
  if (order === 'highest') yield ['order', `${shrinking} go by the norms of the filters, the least first`];
  if (cuts !== undefined && cuts > 1) yield ['cuts', `${shrinking} cut once`];
  if (stages !== 'joint' && stages !== 'filters') yield ['stages', `${shrinking} remove filters only`];
  if (steps === 0) yield ['steps', `${shrinking} need time to learn`];
}

export type PruneOptions = z.output<typeof pruneOptionsSchema> & RunControl;
