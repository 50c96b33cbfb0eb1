/**
 * What distillation compares: the residual blocks of a network, or its layers where it has no blocks, each with its
 * representation and its flowChange in a form that gradients pass through.
 */
import { findBlocks, type ResidualBlock } from '../flow/blocks.js';
import { planChange, type FlowStep } from '../flow/change-plan.js';
import { channelAxisOf } from '../flow/channel-trace.js';
import type { ChannelMap } from '../flow/channel-map.js';
import { aligned } from '../flow/path-tensor.js';
import { postActivation } from '../flow/post-activation.js';
import { layoutOf, sumPerSample, tracedRows } from '../flow/sample-axis.js';
import type { ModelProto } from 'onnx-buf';
import { DataType } from '../onnx/dtypes.js';
import { Graph, type Value } from '../onnx/graph.js';
import { findLayers } from '../onnx/layers.js';
import { formula } from '../onnx/ops.js';
import { makeTensor } from '../onnx/tensor.js';
import { tensorInfo } from '../onnx/value-info.js';
import type { TracedValues } from '../runtime/trace.js';

/** A block or layer, by names, so that it holds for every Graph of the same model. */
export interface FlowUnit {
  readonly name: string;
  /** `block`, or the operator of the layer. */
  readonly kind: string;
  /** Position in the network: 0 first, 1 last. */
  readonly depth: number;
  /** The representation: what the unit gives, behind its activation. */
  readonly value: string;
  /** Dims of `value` without the samples', and where its channels are among them. */
  readonly dims: readonly number[];
  readonly channelAxis: number;
  /** How its flowChange is computed. */
  readonly change:
    | { readonly kind: 'block'; readonly branch: string; readonly output: string; readonly dims: readonly number[] }
    | { readonly kind: 'step'; readonly step: FlowStep };
}

/** A model with the names of what its units stand on. @param shapes dims of its values, traced with one sample */
export function flowUnits(model: ModelProto, shapes: TracedValues): FlowUnit[] {
  const graph = new Graph(model);
  const layers = findLayers(graph);
  const blocks = findBlocks(graph, layers);
  const found = blocks.length > 0 ? blocks.flatMap((block) => blockUnit(graph, block, shapes)) : [];
  const units = found.length > 0 ? found : stepUnits(graph, layers, shapes);
  return units.map((unit, i) => ({ ...unit, depth: units.length > 1 ? i / (units.length - 1) : 1 }));
}

type Unplaced = Omit<FlowUnit, 'depth'>;

function blockUnit(graph: Graph, block: ResidualBlock, shapes: TracedValues): Unplaced[] {
  const rows = tracedRows(graph, shapes);
  const { output } = postActivation(graph, block.output);
  const dims = [output, block.output.name, block.branch.name].map((name) => {
    const traced = shapes.get(name);
    return traced?.type === 'float32' && layoutOf(traced.dims, rows).kind === 'first'
      ? traced.dims.slice(1)
      : undefined;
  });
  const [own, sum, branch] = dims;
  if (!own || !sum || sum.join() !== branch?.join()) return [];
  const channelAxis = channelAxisOf(block.layers.at(-1)!, own.length + 1) - 1;
  const change = { kind: 'block' as const, branch: block.branch.name, output: block.output.name, dims: sum };
  return [{ name: block.name, kind: 'block', value: output, dims: own, channelAxis, change }];
}

function stepUnits(graph: Graph, layers: ReturnType<typeof findLayers>, shapes: TracedValues): Unplaced[] {
  const { steps } = planChange(graph, layers, [], shapes);
  const opOf = new Map(layers.map(({ name, op }) => [name, op]));
  return steps.map((step) => ({
    name: step.layer,
    kind: opOf.get(step.layer)!,
    value: step.to.name,
    dims: shapes.get(step.to.name)!.dims.slice(1),
    channelAxis: step.to.axis - 1,
    change: { kind: 'step', step },
  }));
}

/** Keeps quotients finite where a tensor vanishes. */
const EPSILON = 1e-6;
/** Keeps the slope of a square root finite at 0, where a unit changes nothing. */
const LEAST_SQUARE = 1e-12;

/** Inputs that a channel map is fed through: P [outputs, inputs] and its bias [outputs, 1]. */
export interface MapInputs {
  readonly matrix: string;
  readonly bias: string;
}

/**
 * Adds the flowChange of a unit, [N]: ||F|| / (||y|| + 1e-6) of a block y = x + F(x), ||T - P T_before|| / (||T|| + 1e-6) of a
 * layer (flow/change.ts).
 * @param map how the map of a layer of another shape comes in: as constants, or through inputs, which are added
 */
export function attachChange(
  graph: Graph,
  { name, change }: FlowUnit,
  map: ChannelMap | 'fed' | undefined,
): { readonly value: Value; readonly inputs?: MapInputs } {
  const calc = formula(graph);
  const ratio = (difference: Value, end: Value, dims: readonly number[]): Value => {
    const norm = (value: Value): Value => {
      const squares = sumPerSample(graph, { value: calc('Mul', value, value), dims }, 'ReduceSum');
      return calc('Sqrt', calc('Add', squares, LEAST_SQUARE));
    };
    return calc('Div', norm(difference), calc('Add', norm(end), EPSILON));
  };
  if (change.kind === 'block')
    return { value: ratio(graph.mustGet(change.branch), graph.mustGet(change.output), change.dims) };
  const { step } = change;
  if (step.kind === 'same') {
    const [from, to] = [graph.mustGet(step.from.name), graph.mustGet(step.to.name)];
    return { value: ratio(calc('Sub', to, from), to, [step.to.channels, ...step.to.grid]) };
  }
  const { from, to, positions } = aligned(graph, step);
  const [outputs, inputs] = [step.to.channels, step.from.channels];
  const given = (part: string, dims: readonly number[], data: Float32Array | undefined): Value => {
    const free = graph.uniqueName(`${name} ${part}`);
    return data
      ? graph.addInitializer(makeTensor(free, DataType.FLOAT, dims, data))
      : graph.addInput(tensorInfo(free, DataType.FLOAT, dims));
  };
  const fitted = map === 'fed' ? undefined : map;
  const matrix = given('map', [outputs, inputs], fitted?.matrix);
  const bias = given('map bias', [outputs, 1], fitted?.bias);
  const predicted = calc('Add', graph.insertOp('MatMul', [matrix, from]), bias);
  return {
    value: ratio(calc('Sub', to, predicted), to, [outputs, positions]),
    ...(!fitted && { inputs: { matrix: matrix.name, bias: bias.name } }),
  };
}
