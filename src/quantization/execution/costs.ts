/** Execution costs for the region planner: measured on this machine, or from the target's table. */
import type { Graph, Node, Value } from '../../onnx/graph.js';
import { findLayers, type WeightLayer } from '../../onnx/layers.js';
import { timeOf, type BorderTimes, type NodeTimes } from '../../runtime/op-times.js';
import type { KernelTable, OperatorClass } from '../../runtime/target.js';
import type { TracedValues } from '../../runtime/trace.js';
import { handsOutFloats, type Int8Candidate } from './candidates.js';
import type { ExecutionCosts } from './plan.js';

export interface MeasuredTimes {
  readonly batch: number;
  /** The file with every node in float. */
  readonly float: NodeTimes;
  /** The file with every candidate in int8. */
  readonly int8: NodeTimes;
  readonly borders: BorderTimes;
}

/**
 * MaxPool of uint8 is fast in the channels-last layout only, which it takes over from an int8 node before it; in the
 * plain layout of a tensor that was just rounded it takes many times as long as in float.
 */
const POOL_ENTRY = 20;

function isImagePool(node: Node, shapes: TracedValues): boolean {
  return node.is('MaxPool') && shapes.get(nameOf(node))?.dims.length === 4;
}

/** Elements of a value for a batch, from its dims for one sample. */
function elementsOf(shapes: TracedValues, value: Value | undefined, batch: number): number {
  const dims = value ? shapes.get(value.name)?.dims : undefined;
  return (dims ?? []).reduce((a, b) => a * b, 1) * batch;
}

/**
 * Kernel times in microseconds as the engine's profile of both files shows them; a node without a kernel of its own (fused
 * into a neighbour, or folded) is free. Images are also brought from the float kernels' blocked layout to the int8
 * kernels' channels-last one, or back.
 */
export function measuredCosts(graph: Graph, shapes: TracedValues, times: MeasuredTimes): ExecutionCosts {
  const { borders, batch } = times;
  const layoutChange = (value: Value): number => {
    if (shapes.get(value.name)?.dims.length !== 4) return 0;
    const elements = elementsOf(shapes, value, batch);
    return timeOf(borders.transpose, elements) + (value.producer ? timeOf(borders.reorder, elements) : 0);
  };
  return {
    entry: ({ node }) => POOL_ENTRY * (isImagePool(node, shapes) ? (times.float.micros.get(nameOf(node)) ?? 0) : 0),
    node: ({ unit }, execution) =>
      unit.reduce((sum, node) => sum + (times[execution].micros.get(nameOf(node)) ?? 0), 0),
    quantize: (value) => timeOf(borders.quantize, elementsOf(shapes, value, batch)) + layoutChange(value),
    dequantize: (value) =>
      madeInFloat(graph, value)
        ? 0
        : timeOf(borders.dequantize, elementsOf(shapes, value, batch)) + layoutChange(value),
  };
}

/** The target's table applied to shapes, for machines that have not been measured. */
export function tableCosts(graph: Graph, shapes: TracedValues, table: KernelTable, batch: number): ExecutionCosts {
  const layers = new Map(findLayers(graph).map((layer) => [layer.node, layer]));
  const border = (value: Value): number => {
    const rate = shapes.get(value.name)?.dims.length === 4 ? table.border.imageRate : table.border.rate;
    return table.border.perCall + elementsOf(shapes, value, batch) / rate;
  };
  return {
    entry: ({ node }) =>
      isImagePool(node, shapes) ? (POOL_ENTRY * elementsOf(shapes, node.outputs[0], batch)) / table.floatRate.pool : 0,
    node({ node, kind }, execution) {
      const layer = layers.get(node);
      const elements = elementsOf(shapes, node.outputs[0], batch);
      const operator = kind === 'move' ? 'move' : layer ? classOf(layer, shapes, elements) : unweightedClass(node);
      const work = layer ? elements * layer.cols : elements;
      const float = table.perCall + work / table.floatRate[operator];
      return execution === 'float' ? float : table.perCall + (float - table.perCall) * table.int8Time[operator];
    },
    quantize: border,
    dequantize: (value) => (madeInFloat(graph, value) ? 0 : border(value)),
  };
}

/** Adds up costs; the weights put batch sizes on one scale. */
export function weightedSum(parts: readonly { costs: ExecutionCosts; weight: number }[]): ExecutionCosts {
  const sum = (of: (costs: ExecutionCosts) => number): number =>
    parts.reduce((total, { costs, weight }) => total + weight * of(costs), 0);
  return {
    node: (candidate: Int8Candidate, execution) => sum((costs) => costs.node(candidate, execution)),
    entry: (candidate) => sum((costs) => costs.entry(candidate)),
    quantize: (value) => sum((costs) => costs.quantize(value)),
    dequantize: (value) => sum((costs) => costs.dequantize(value)),
  };
}

/** True for the result of a MatMul or Gemm, behind its bias and clamp. */
function madeInFloat(graph: Graph, value: Value): boolean {
  let node = value.producer;
  for (let i = 0; i < 2 && node && (node.is('Relu') || node.is('Clip') || isBiasAdd(graph, node)); i++) {
    node = node.inputs.find((v) => v && !graph.constant(v))?.producer;
  }
  return node !== undefined && handsOutFloats(node);
}

function isBiasAdd(graph: Graph, node: Node): boolean {
  return node.is('Add') && node.inputs.some((v) => graph.constant(v) !== undefined);
}

function nameOf(node: Node): string {
  return node.outputs[0]?.name ?? '';
}

/** Channel counts and outputs below this leave most of a vector unit idle. */
const SMALL = 16;

function classOf(layer: WeightLayer, shapes: TracedValues, outputElements: number): OperatorClass {
  if (layer.op !== 'Conv') return outputElements / layer.channels < 4 ? 'matvec' : 'matmul';
  if (layer.depthwise) return 'depthwise-conv';
  if (layer.groups > 1) return 'grouped-conv';
  const inputChannels = shapes.get(layer.input.name)?.dims[1] ?? layer.dims[1]!;
  if (layer.channels < SMALL || inputChannels < SMALL) return 'small-conv';
  return layer.cols === layer.dims[1] ? 'pointwise-conv' : 'conv';
}

function unweightedClass(node: Node): OperatorClass {
  return /Pool$|^ReduceMax$/.test(node.opType) ? 'pool' : 'elementwise';
}
