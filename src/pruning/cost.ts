/** What a model costs once units and layers have gone, told from shapes alone. */
import type { Graph, Node, Value } from '../onnx/graph.js';
import { loadTimeValues } from '../onnx/load-time.js';
import { macCounter, type Shapes } from '../onnx/macs.js';
import { parametersOf } from '../onnx/parameters.js';
import type { Dependencies } from './groups.js';
import { projectionCost, type Projection } from './projections.js';

export interface Cost {
  /** Multiply-accumulates of one sample; undefined where they cannot be counted. */
  readonly macs: number | undefined;
  /** Elements of all learned tensors. */
  readonly params: number;
  /** The multiply-accumulates that kernels with blocks of channels really make: those of a convolution on whole blocks. */
  readonly blocked: number | undefined;
}

/** The cost without the classes that are marked with 1 and without the nodes in `gone`, but with the projections `added`. */
export type CostModel = (
  removed: Uint8Array,
  gone?: ReadonlySet<Node>,
  added?: readonly Pick<Projection, 'step'>[],
) => Cost;

/**
 * @param shapes dims of every value for `rows` samples
 * @param block channels that convolution kernels compute at a time
 */
export function costModel(
  graph: Graph,
  shapes: Shapes,
  { units: { axes, classOf } }: Dependencies,
  rows: number,
  block = 1,
): CostModel {
  const nodes = graph.nodes;
  const stored = [...graph.values()].filter((value) => value.initializer !== undefined);
  const readers = learnedBy(graph);
  const dimsOf = new Map<string, readonly number[]>();
  for (const [name, { dims }] of shapes) dimsOf.set(name, dims);
  for (const { name, initializer } of stored) dimsOf.set(name, initializer!.dims.map(Number));
  return (removed, gone = new Set(), added = []) => {
    const left = new Map<string, { readonly dims: readonly number[] }>();
    for (const [name, dims] of dimsOf) {
      const own = axes.get(name);
      const kept = dims.map((size, axis) => {
        const along = own?.[axis];
        if (!along || along.size !== size || size <= 1) return size;
        let count = 0;
        for (let i = 0; i < size; i++) count += 1 - removed[classOf[along.start + i]!]!;
        return count;
      });
      left.set(name, { dims: kept });
    }
    let params = 0;
    for (const [{ name }, nodesOf] of readers)
      if (nodesOf.some((node) => !gone.has(node))) params += product(left.get(name)!.dims);
    const counter = macCounter(graph, left, rows);
    let [macs, blocked] = [0, 0];
    for (const { step } of added) {
      const [inputs, outputs] = [step.from, step.to].map(({ name }) => left.get(name)!.dims[1]!) as [number, number];
      const own = projectionCost(inputs, outputs, step);
      params += own.params;
      macs += own.macs;
      blocked +=
        step.to.grid.length > 0 ? own.macs * wholeBlocks(outputs, block) * wholeBlocks(inputs, block) : own.macs;
    }
    for (const node of nodes) {
      if (gone.has(node)) continue;
      const own = counter.ofNode(node);
      if (own === undefined) return { macs: undefined, params, blocked: undefined };
      macs += own;
      blocked += own * filling(node, left, block);
    }
    return { macs, params, blocked };
  };
}

/** What a convolution computes on whole blocks of channels, as a multiple of what it has to. */
function filling(node: Node, shapes: Shapes, block: number): number {
  const weight = node.is('Conv') ? shapes.get(node.inputs[1]!.name)?.dims : undefined;
  if (!weight) return 1;
  // The channels of images are few in any model.
  const inputs = node.int('group', 1) === 1 && weight[1]! > 4 ? wholeBlocks(weight[1]!, block) : 1;
  return wholeBlocks(weight[0]!, block) * inputs;
}

/** Channels filled up to whole blocks, as a multiple of those there are. */
function wholeBlocks(channels: number, block: number): number {
  return (Math.ceil(channels / block) * block) / Math.max(channels, 1);
}

/** The nodes that read each learned tensor. */
function learnedBy(graph: Graph): Map<Value, Node[]> {
  const known = loadTimeValues(graph);
  const readers = new Map<Value, Node[]>();
  for (const node of graph.nodes) {
    if (node.outputs.some((output) => output && known.has(output))) continue;
    for (const value of parametersOf(graph, node, known))
      if (value.initializer) readers.set(value, [...(readers.get(value) ?? []), node]);
  }
  return readers;
}

const product = (dims: readonly number[]): number => dims.reduce((a, b) => a * b, 1);
