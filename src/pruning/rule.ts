/** What the rule of an operator says: which indices it ties, which it fixes, and how it states sizes. */
import type { Node } from '../onnx/graph.js';
import type { Mender } from './mender.js';
import type { Ties } from './ties.js';

export interface PruningRule {
  /**
   * Ties or fixes every axis of every operand and result that is longer than 1, or says that it is free. An axis that is not
   * mentioned is fixed.
   */
  readonly follow: (node: Node, ties: Ties) => void;
  /** Rewrites what the node says about sizes. Called only when an operand or result has lost indices. */
  readonly mend?: (node: Node, mender: Mender) => void;
  /** What the weights of a layer do: absent for operators that are no layers. */
  readonly layer?: LayerAxes;
}

/** Where a layer reads and writes units. Axes count from the front or, negative, from the end. */
export interface LayerAxes {
  /** Operand that makes it a layer if it is stored. */
  readonly weight: number;
  /** Axis of the result that holds what the layer makes. */
  readonly made: number;
  /** Axes of the stored operand that hold what the layer makes, and what it sums over. */
  readonly axes: (node: Node) => { readonly producer: number; readonly consumer?: number };
}

/** Rules of operators of the default domain, by operator type; `domain:Op` elsewhere. */
export type PruningRules = Readonly<Record<string, PruningRule>>;
