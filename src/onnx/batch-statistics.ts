/** Mean and variance of groups of elements as graph nodes: one way to write them, so that all who need them share the nodes. */
import type { Graph, Value } from './graph.js';
import { formula, reduceKeeping } from './ops.js';

export interface Statistics {
  /** Over the axes, which stay with length 1. */
  readonly mean: Value;
  /** x - mean. */
  readonly centered: Value;
  /** Its squares, whose mean is the variance of the whole population. */
  readonly squares: Value;
  readonly variance: Value;
  /** 1 / sqrt(variance + epsilon). */
  readonly r: Value;
}

export function insertStatistics(graph: Graph, x: Value, axes: readonly number[], epsilon: number): Statistics {
  const op = formula(graph);
  const mean = reduceKeeping(graph, 'ReduceMean', x, axes);
  const centered = op('Sub', x, mean);
  const squares = op('Mul', centered, centered);
  const variance = reduceKeeping(graph, 'ReduceMean', squares, axes);
  return { mean, centered, squares, variance, r: inverseRoot(graph, variance, epsilon) };
}

/** 1 / sqrt(variance + epsilon) */
export function inverseRoot(graph: Graph, variance: Value, epsilon: number): Value {
  const op = formula(graph);
  return op('Reciprocal', op('Sqrt', op('Add', variance, epsilon)));
}
