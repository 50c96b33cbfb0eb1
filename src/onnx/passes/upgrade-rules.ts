/**
 * How each operator of the default domain at opset 7 to 12 is written at opset 13. An operator is either in the table
 * of those whose old form is still right, or has a rule; any other cannot be upgraded.
 */
import { AttributeProto_AttributeType as Kind, type AttributeProto } from 'onnx-buf';
import { FlowCompressError } from '../../errors.js';
import { intAttribute, stringAttribute } from '../attributes.js';
import { DataType } from '../dtypes.js';
import type { Graph, Node, Value } from '../graph.js';
import { makeTensor, readFloats } from '../tensor.js';
import { elementTypeOf, rankOf } from './infer.js';

/** Rewrites a node of opset `from` in place; returns whether anything changed. */
export type UpgradeRule = (graph: Graph, node: Node, from: number) => boolean;

/** Operators whose form at opset 7 or later means the same at opset 13 (new types, inputs and attributes at most). */
export const UNCHANGED: ReadonlySet<string> = new Set(
  `Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BitShift Ceil Celu Compress Concat
  ConcatFromSequence Constant ConstantOfShape Conv ConvInteger ConvTranspose Cos Cosh CumSum DepthToSpace
  DequantizeLinear Det Div DynamicQuantizeLinear Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor GRU Gather
  GatherElements GatherND Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual HardSigmoid Identity
  If InstanceNormalization IsInf IsNaN LRN LSTM LeakyRelu Less LessOrEqual Log Loop LpNormalization LpPool MatMul
  MatMulInteger Max MaxPool MaxRoiPool MaxUnpool Mean MeanVarianceNormalization Min Mod Mul Multinomial Neg
  NegativeLogLikelihoodLoss NonMaxSuppression NonZero Not OneHot Or PRelu Pow QLinearConv QLinearMatMul QuantizeLinear
  RNN RandomNormal RandomNormalLike RandomUniform RandomUniformLike Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum
  ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSumSquare Relu Reshape ReverseSequence RoiAlign Round
  ScatterElements ScatterND Selu SequenceAt SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceLength
  Shape Shrink Sigmoid Sign Sin Sinh Size SoftmaxCrossEntropyLoss Softplus Softsign SpaceToDepth SplitToSequence Sqrt
  StringNormalizer Sub Sum Tan Tanh TfIdfVectorizer ThresholdedRelu Tile Transpose Unique Where Xor`.split(/\s+/),
);

export const UPGRADE_RULES: ReadonlyMap<string, UpgradeRule> = new Map<string, UpgradeRule>([
  ['BatchNormalization', upgradeBatchNormalization],
  ['Cast', checkCast],
  ['Clip', upgradeClip],
  ['Dropout', upgradeDropout],
  ['Hardmax', upgradeSoftmax],
  ['LogSoftmax', upgradeSoftmax],
  ['Pad', upgradePad],
  ['ReduceSum', (graph, node) => moveInts(graph, node, 'axes', 1)],
  ['Resize', upgradeResize],
  ['Scan', checkScan],
  ['Scatter', upgradeScatter],
  ['Slice', upgradeSlice],
  ['Softmax', upgradeSoftmax],
  ['Split', (graph, node) => moveInts(graph, node, 'split', 1)],
  ['Squeeze', (graph, node) => moveInts(graph, node, 'axes', 1)],
  ['TopK', upgradeTopK],
  ['Unsqueeze', (graph, node) => moveInts(graph, node, 'axes', 1)],
  ['Upsample', upgradeUpsample],
]);

/** The error for a node that has no exact form at opset 13. */
export function cannotUpgrade(node: Node, from: number, why: string): FlowCompressError {
  return new FlowCompressError(
    'unsupported',
    `Node '${node.label}' (${node.opType}) of opset ${String(from)} cannot be raised to opset 13: ${why}.`,
    { node: node.label, hint: 'Export the model again with opset 13 or higher.' },
  );
}

function int64s(graph: Graph, name: string, values: readonly bigint[]): Value {
  const data = BigInt64Array.from(values);
  return graph.addInitializer(makeTensor(graph.uniqueName(name), DataType.INT64, [values.length], data));
}

/** Moves an integer list from an attribute to an input. Bigints: ends of a Slice exceed the safe integers. */
function moveInts(graph: Graph, node: Node, attribute: string, index: number): boolean {
  const values = take(node, attribute)?.ints;
  if (!values) return false;
  graph.setInput(node, index, int64s(graph, `${node.label}_${attribute}`, values));
  return true;
}

function take(node: Node, name: string): AttributeProto | undefined {
  const attribute = node.attributes.get(name);
  node.attributes.delete(name);
  return attribute;
}

/** A scalar of the element type of `like`, float32 when that is not evident: then engines refuse a wrong guess. */
function scalarLike(graph: Graph, like: Value | undefined, name: string, value: number): Value {
  const type = elementTypeOf(like) ?? DataType.FLOAT;
  return graph.addInitializer(makeTensor(graph.uniqueName(name), type, [], [value]));
}

function upgradeBatchNormalization(_graph: Graph, node: Node, from: number): boolean {
  const spatial = take(node, 'spatial');
  if (spatial && spatial.i === 0n) throw cannotUpgrade(node, from, 'spatial = 0 was dropped from ONNX');
  return spatial !== undefined;
}

function checkCast(_graph: Graph, node: Node, from: number): boolean {
  const to = node.attributes.get('to');
  if (to?.type === Kind.STRING) throw cannotUpgrade(node, from, 'its target type is a name, as before opset 6');
  return false;
}

function checkScan(_graph: Graph, node: Node, from: number): boolean {
  if (from < 9) throw cannotUpgrade(node, from, 'Scan had a batch axis before opset 9');
  return false;
}

function upgradeClip(graph: Graph, node: Node, from: number): boolean {
  if (from >= 11) return false;
  (['min', 'max'] as const).forEach((bound, i) => {
    const attribute = take(node, bound);
    if (attribute)
      graph.setInput(node, i + 1, scalarLike(graph, node.inputs[0], `${node.label}_${bound}`, attribute.f));
  });
  return true;
}

function upgradeDropout(graph: Graph, node: Node, from: number): boolean {
  if (from >= 12) return false;
  const mask = node.outputs[1];
  if (mask && from < 10) {
    const read = mask.uses.size > 0 || graph.isGraphOutput(mask);
    if (read) throw cannotUpgrade(node, from, 'its mask, which has become boolean, is read');
    mask.info = undefined;
  }
  const ratio = take(node, 'ratio');
  if (!ratio) return false;
  const tensor = makeTensor(graph.uniqueName(`${node.label}_ratio`), DataType.FLOAT, [], [ratio.f]);
  graph.setInput(node, 1, graph.addInitializer(tensor));
  return true;
}

function upgradePad(graph: Graph, node: Node, from: number): boolean {
  if (from >= 11) return false;
  const value = take(node, 'value');
  moveInts(graph, node, 'pads', 1);
  if (value) graph.setInput(node, 2, scalarLike(graph, node.inputs[0], `${node.label}_value`, value.f));
  return true;
}

function upgradeScatter(_graph: Graph, node: Node): boolean {
  node.opType = 'ScatterElements';
  return true;
}

function upgradeSlice(graph: Graph, node: Node, from: number): boolean {
  if (from >= 10) return false;
  return ['starts', 'ends', 'axes'].map((name, i) => moveInts(graph, node, name, i + 1)).some((moved) => moved);
}

function upgradeTopK(graph: Graph, node: Node, from: number): boolean {
  if (from >= 10) return false;
  const k = take(node, 'k');
  if (!k) throw cannotUpgrade(node, from, 'it has no k');
  graph.setInput(node, 1, int64s(graph, `${node.label}_k`, [k.i]));
  return true;
}

/** Before opset 13 the axes from `axis` (1 by default) on were normalised together, as one row. */
function upgradeSoftmax(graph: Graph, node: Node): boolean {
  const input = node.inputs[0];
  const output = node.outputs[0];
  if (!input || !output) return false;
  const axis = node.int('axis', 1);
  const rank = rankOf(graph, input);
  graph.setAttribute(node, intAttribute('axis', -1));
  if (axis === -1 || (rank !== undefined && axis === rank - 1)) return true;
  const shape = graph.insertOp('Shape', [input]);
  graph.setInput(node, 0, graph.insertOp('Flatten', [input], [intAttribute('axis', axis)]));
  graph.insert({ opType: 'Reshape', inputs: [graph.detach(output), shape], outputs: [output] });
  return true;
}

function upgradeResize(graph: Graph, node: Node, from: number): boolean {
  if (from >= 11) return replaceTfHalfPixel(graph, node, from);
  const scales = node.inputs[1];
  const known = graph.constant(scales);
  if (!known && node.string('mode', 'nearest') === 'nearest') {
    throw cannotUpgrade(node, from, 'its scales are computed, so it is not known whether it enlarges or reduces');
  }
  return resizeBy(graph, node, scales, known && [...readFloats(known)]);
}

function upgradeUpsample(graph: Graph, node: Node, from: number): boolean {
  node.opType = 'Resize';
  if (from >= 9) {
    const known = graph.constant(node.inputs[1]);
    return resizeBy(graph, node, node.inputs[1], known && [...readFloats(known)]);
  }
  const scales = take(node, 'scales')?.floats;
  if (!scales) throw cannotUpgrade(node, from, 'it has no scales');
  return resizeBy(graph, node, floats(graph, `${node.label}_scales`, scales), scales);
}

function floats(graph: Graph, name: string, values: readonly number[]): Value {
  const data = Float32Array.from(values);
  return graph.addInitializer(makeTensor(graph.uniqueName(name), DataType.FLOAT, [values.length], data));
}

/**
 * Up to opset 10 coordinates were divided by the scale, and the nearest source was the one below where an axis grows and
 * the one above where it shrinks. Where axes do both, two nodes resize one kind each.
 */
function resizeBy(graph: Graph, node: Node, scales: Value | undefined, known: readonly number[] | undefined): boolean {
  if (!scales) throw cannotUpgrade(node, 10, 'it has no scales');
  graph.setAttribute(node, stringAttribute('coordinate_transformation_mode', 'asymmetric'));
  graph.setInput(node, 1, undefined);
  graph.setInput(node, 2, scales);
  if (node.string('mode', 'nearest') !== 'nearest') return true;
  const shrinks = known?.some((scale) => scale < 1) ?? false;
  graph.setAttribute(node, stringAttribute('nearest_mode', shrinks ? 'ceil' : 'floor'));
  if (!known || !shrinks || !known.some((scale) => scale > 1)) return true;
  const grow = floats(
    graph,
    `${scales.name}_grow`,
    known.map((scale) => Math.max(scale, 1)),
  );
  const shrink = floats(
    graph,
    `${scales.name}_shrink`,
    known.map((scale) => Math.min(scale, 1)),
  );
  const attributes = [...node.attributes.values(), stringAttribute('nearest_mode', 'floor')];
  const grown = graph.insertOp('Resize', [node.inputs[0], undefined, grow], attributes);
  graph.setInput(node, 0, grown);
  graph.setInput(node, 2, shrink);
  return true;
}

/** `tf_half_pixel_for_nn` left ONNX at opset 13: floor((i + 0.5) / scale) is half_pixel rounded to nearest, ties up. */
function replaceTfHalfPixel(graph: Graph, node: Node, from: number): boolean {
  if (node.string('coordinate_transformation_mode', 'half_pixel') !== 'tf_half_pixel_for_nn') return false;
  const exact = node.string('mode', 'nearest') === 'nearest' && node.string('nearest_mode', '') === 'floor';
  if (!exact) throw cannotUpgrade(node, from, 'tf_half_pixel_for_nn was dropped from ONNX');
  graph.setAttribute(node, stringAttribute('coordinate_transformation_mode', 'half_pixel'));
  graph.setAttribute(node, stringAttribute('nearest_mode', 'round_prefer_ceil'));
  return true;
}
