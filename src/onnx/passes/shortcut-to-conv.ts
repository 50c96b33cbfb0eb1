/**
 * The parameter-free shortcut of residual networks (every second pixel, zero channels around) as a 1x1 convolution with
 * an identity weight. Slice and Pad leave the engine's blocked layout, and Pad has no int8 form; the convolution
 * has both and lets the addition behind it fuse.
 */
import { TensorProto_DataType as DataType } from 'onnx-buf';
import { intAttribute, intsAttribute } from '../attributes.js';
import type { Graph, Node, Value } from '../graph.js';
import { constantOf } from '../ops.js';
import { readFloats, readInts } from '../tensor.js';

/** Dims of a value for a batch of one sample, undefined when they are not known. */
export type DimsOf = (value: Value) => readonly number[] | undefined;

/** Larger identity weights would cost more than the layout changes that they save. */
const MAX_WEIGHTS = 1 << 20;

/**
 * Replaces Slice (every n-th row and column from the first) -> Pad (zero channels) in place and returns how many pairs went.
 * Exact for finite values: every output is one input times 1 plus zeros. The weight is computed at load from its shape,
 * so it adds no bytes to speak of.
 */
export function shortcutToConv(graph: Graph, dimsOf: DimsOf): number {
  let replaced = 0;
  for (const pad of graph.nodes) {
    const channels = channelPadding(graph, pad);
    const padded = pad.inputs[0];
    const output = pad.outputs[0];
    if (!channels || !padded || !output) continue;
    const slices = spatialSlices(graph, padded);
    const dims = slices && dimsOf(slices.input);
    if (!slices || dims?.length !== 4) continue;
    const inputs = dims[1]!;
    const outputs = channels.before + inputs + channels.after;
    if (inputs * outputs > MAX_WEIGHTS) continue;
    const weight = identityWeight(graph, outputs, inputs, channels.before);
    const conv = graph.insertOp(
      'Conv',
      [slices.input, weight],
      [intsAttribute('kernel_shape', [1, 1]), intsAttribute('strides', slices.strides)],
    );
    graph.replaceUses(output, conv);
    if (!graph.isGraphOutput(output)) {
      graph.remove(pad);
      graph.rename(conv, output.name);
    }
    replaced++;
  }
  if (replaced > 0) graph.removeDead();
  return replaced;
}

/** Zero channels that a Pad adds before and behind the others, if that is all it does. */
function channelPadding(graph: Graph, node: Node): { before: number; after: number } | undefined {
  if (!node.is('Pad') || node.string('mode', 'constant') !== 'constant') return undefined;
  const pads = graph.constant(node.inputs[1]);
  const filler = node.inputs[2];
  if (!pads || node.inputs[3]) return undefined;
  if (filler) {
    const tensor = graph.constant(filler);
    if (tensor?.dataType !== Number(DataType.FLOAT) || readFloats(tensor)[0] !== 0) return undefined;
  }
  const amounts = readInts(pads);
  if (amounts.length !== 8 || amounts.some((n, i) => n !== 0 && i !== 1 && i !== 5)) return undefined;
  const [before, after] = [amounts[1]!, amounts[5]!];
  return before >= 0 && after >= 0 && before + after > 0 ? { before, after } : undefined;
}

/** Walks up the Slices that take every n-th row and column, starting with the first. */
function spatialSlices(graph: Graph, value: Value): { input: Value; strides: number[] } | undefined {
  const strides = [1, 1];
  let input = value;
  for (let node = input.producer; node?.is('Slice'); node = input.producer) {
    const steps = sliceSteps(graph, node);
    if (!steps || !node.inputs[0]) break;
    strides[0]! *= steps[0]!;
    strides[1]! *= steps[1]!;
    input = node.inputs[0];
  }
  return input === value ? undefined : { input, strides };
}

/** Step along height and width of a Slice that drops nothing else. */
function sliceSteps(graph: Graph, node: Node): [number, number] | undefined {
  const [starts, ends, axes, steps] = [1, 2, 3, 4].map((i) => {
    const tensor = graph.constant(node.inputs[i]);
    return tensor ? readInts(tensor) : undefined;
  });
  if (!starts || !ends || !axes || !steps) return undefined;
  const result: [number, number] = [1, 1];
  for (const [i, axis] of axes.entries()) {
    const spatial = axis < 0 ? axis + 2 : axis - 2;
    // Only an end beyond any image surely keeps the last rows, whatever the input's size.
    if ((spatial !== 0 && spatial !== 1) || starts[i] !== 0 || ends[i]! < 32767 || steps[i]! < 1) return undefined;
    result[spatial]! *= steps[i]!;
  }
  return result;
}

/** float [outputs, inputs, 1, 1] with ones where output = input + offset, computed at load. */
function identityWeight(graph: Graph, outputs: number, inputs: number, offset: number): Value {
  const shape = constantOf(graph, [outputs, inputs], 'int64', { name: 'shortcut_shape' });
  const zeros = graph.insertOp('ConstantOfShape', [shape], [], graph.uniqueName('shortcut_zeros'));
  const eye = graph.insertOp(
    'EyeLike',
    [zeros],
    [intAttribute('dtype', Number(DataType.INT32)), intAttribute('k', -offset)],
  );
  const kernel = graph.insertOp('Reshape', [
    eye,
    constantOf(graph, [outputs, inputs, 1, 1], 'int64', { name: 'shortcut_dims' }),
  ]);
  return graph.insertOp(
    'Cast',
    [kernel],
    [intAttribute('to', Number(DataType.FLOAT))],
    graph.uniqueName('shortcut_weight'),
  );
}

/** True for the convolutions that `shortcutToConv` makes. */
export function isShortcutConv(node: Node): boolean {
  return node.is('Conv') && eyeBehind(node) !== undefined;
}

/** The integer identity kernel of a shortcut convolution. */
function eyeBehind(node: Node): Value | undefined {
  const kernel = node.inputs[1]?.producer?.inputs[0];
  return kernel?.producer?.is('Reshape') && kernel.producer.inputs[0]?.producer?.is('EyeLike') ? kernel : undefined;
}

/**
 * Gives a shortcut convolution that runs in int8 the weight form that the engine fuses: codes 0 and 1 with scale 1.
 * Does nothing to other nodes.
 */
export function quantizeShortcut(graph: Graph, node: Node): void {
  const kernel = node.is('Conv') ? eyeBehind(node) : undefined;
  if (!kernel) return;
  const codes = graph.insertOp('Cast', [kernel], [intAttribute('to', Number(DataType.INT8))]);
  const one = constantOf(graph, [1], 'float32', { scalar: true, name: 'shortcut_scale' });
  graph.setInput(node, 1, graph.insertOp('DequantizeLinear', [codes, one]));
}
