/** The pruning methods by name, IDAP++ first: what each decides by, and what it does after a cut. */
import type { ScoreName } from './scores.js';

/**
 * How the cut is shared out over the model. `measured`: by the divergence that cuts at single sites cause; `ranked`: units of all
 * groups in one list, by their scores; `uniform`: the same share of every group.
 */
export type Sharing = 'measured' | 'ranked' | 'uniform';

export interface StructuredMethod {
  readonly kind: 'structured';
  readonly name: string;
  readonly summary: string;
  readonly score: ScoreName;
  readonly sharing: Sharing;
  /** Whether residual branches may go, and projections stand for layers. */
  readonly layers: boolean;
  /** Whether layers are fitted in closed form after a cut. */
  readonly fit: boolean;
}

/** Single weights are removed; the file stores those that are left. */
export interface WeightMethod {
  readonly kind: 'weights';
  readonly name: string;
  readonly summary: string;
  /**
   * Which weights go: the smallest of all layers, the smallest of every layer, the same with a share that rises while the model
   * learns, or those that Optimal Brain Surgeon can make up for.
   */
  readonly choice: 'global' | 'local' | 'gradual' | 'surgeon';
}

/** Filters are pulled to 0 while the whole model learns, and cut afterwards; nothing is fitted or learned after that. */
export interface ShrinkingMethod {
  readonly kind: 'shrinking';
  readonly name: string;
  readonly summary: string;
  /** `zero`: the filters of least norm are set to 0 from time to time and go on learning; `decay`: they decay more and more. */
  readonly pull: 'zero' | 'decay';
}

export type PruningMethod = StructuredMethod | ShrinkingMethod | WeightMethod;

/** How filters that were pulled to 0 are cut: those of least norm, the same share of every layer. */
export const CUT_OF_SHRUNK: Omit<StructuredMethod, 'name' | 'summary'> = {
  ...{ kind: 'structured', score: 'l2', sharing: 'uniform', layers: false, fit: false },
};

const baseline = (name: string, summary: string, score: ScoreName, sharing: Sharing = 'uniform'): StructuredMethod => ({
  ...{ kind: 'structured', name, summary, score, sharing },
  layers: false,
  fit: false,
});

export const PRUNING_METHODS: readonly PruningMethod[] = [
  {
    kind: 'structured',
    name: 'idap',
    summary:
      'IDAP++: filters, residual branches and layers by the divergence that cutting them causes, fitted in closed form',
    score: 'obs',
    sharing: 'measured',
    layers: true,
    fit: true,
  },
  {
    kind: 'structured',
    name: 'idap-paper',
    summary: 'filters by flow divergence in one list over all layers, as first published; nothing is fitted',
    ...{ score: 'flow', sharing: 'ranked', layers: false, fit: false },
  },
  {
    kind: 'structured',
    name: 'obc',
    summary: 'Optimal Brain Compression for whole channels: the same share of every layer, readers fitted',
    ...{ score: 'obs', sharing: 'uniform', layers: false, fit: true },
  },
  baseline('l1', 'filters with the least sum of absolute weights, the same share of every layer', 'l1'),
  baseline('l2', 'filters of the least norm, the same share of every layer', 'l2'),
  baseline('fpgm', 'filters nearest to the others of their layer, the same share of every layer', 'fpgm'),
  baseline('group-magnitude', 'norms of coupled filters, in one list over all layers', 'l2', 'ranked'),
  baseline(
    'bn-scale',
    'smallest scales of the batch normalizations, in one list over all layers',
    'bn-scale',
    'ranked',
  ),
  baseline('taylor', 'filters by the first-order change of the loss, in one list over all layers', 'taylor', 'ranked'),
  baseline(
    'fisher',
    'filters by the diagonal of the Fisher information, in one list over all layers',
    'fisher',
    'ranked',
  ),
  baseline('random', 'random filters, the same share of every layer', 'random'),
  {
    kind: 'shrinking',
    name: 'sfp',
    summary: 'soft filter pruning: filters of least norm are zeroed now and then while the model learns, then cut',
    pull: 'zero',
  },
  {
    kind: 'shrinking',
    name: 'swd',
    summary: 'selective weight decay: filters of least norm decay more and more while the model learns, then are cut',
    pull: 'decay',
  },
  { kind: 'weights', name: 'magnitude', summary: 'single weights, the smallest of all layers', choice: 'global' },
  {
    kind: 'weights',
    name: 'magnitude-local',
    summary: 'single weights, the smallest of every layer, more of large layers',
    choice: 'local',
  },
  {
    kind: 'weights',
    name: 'magnitude-gradual',
    summary: 'the same, with a share that rises while the model learns',
    choice: 'gradual',
  },
  {
    kind: 'weights',
    name: 'obc-weights',
    summary: 'single weights by Optimal Brain Compression, more of large layers',
    choice: 'surgeon',
  },
];

export function findPruningMethod(name: string): PruningMethod | undefined {
  return PRUNING_METHODS.find((method) => method.name === name);
}
