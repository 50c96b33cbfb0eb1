/** What a gradient rule is given and what it gives back. */
import type { Graph, Node, Value } from '../onnx/graph.js';
import type { FormsFor } from './rules/conv-shape.js';

/** Dims of a value; undefined where the size is not the same at every batch size. */
export type Shape = readonly (number | undefined)[];

export interface GradientContext {
  /** Nodes for the gradient are inserted here. The opset is 13 or newer. */
  readonly graph: Graph;
  /** The node to go back through. */
  readonly node: Node;
  /** Gradient of the loss in each output, of that output's shape; undefined where the loss does not depend on it. */
  readonly gradients: readonly (Value | undefined)[];
  /** Whether the gradient in an input is wanted; what is not wanted need not be built. */
  needs(input: number): boolean;
  /** Elements of a block of ONNX Runtime's blocked layout; undefined where the graph is to run without it. */
  readonly block: number | undefined;
  /** In which form the gradients of a convolution are computed. */
  readonly formsFor: FormsFor;
  /** @throws FlowCompressError `internal` for a value whose shape was never seen */
  shapeOf(value: Value): Shape;
}

/**
 * Inserts the nodes that compute the gradients in a node's inputs.
 * @returns by input, a value of that input's shape; undefined where it is not wanted or zero
 * @throws FlowCompressError `unsupported` naming the node, for an attribute without a rule
 */
export type GradientRule = (context: GradientContext) => readonly (Value | undefined)[];

/** Rules of operators of the default domain, by operator type; `domain:Op` elsewhere. */
export type GradientRules = Readonly<Record<string, GradientRule>>;
