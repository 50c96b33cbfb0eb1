/**
 * Dropout as a product with masks that are fed. They depend on the seed, the node and the number of the batch alone, so a
 * resumed training drops what it would have dropped.
 */
import type { Shape } from '../autodiff/rule.js';
import { seedOf } from '../data/random.js';
import { FlowCompressError } from '../errors.js';
import { DataType } from '../onnx/dtypes.js';
import type { Graph, Node } from '../onnx/graph.js';
import { readFloats } from '../onnx/tensor.js';
import { tensorInfo } from '../onnx/value-info.js';
import type { HostTensor } from '../runtime/engine.js';

export interface DropoutMask {
  /** The input of the graph that takes it. */
  readonly input: string;
  readonly dims: readonly number[];
  /** Share of the elements that become zero. */
  readonly ratio: number;
  readonly seed: number;
}

/**
 * Puts `Mul` by a fed mask in the place of every Dropout.
 * @param shapes of all values, for the batch size of the graph; those of new values are added
 * @throws FlowCompressError `unsupported` for a ratio that is computed and for a mask that other nodes read
 */
export function feedDropoutMasks(graph: Graph, shapes: Map<string, Shape>, seed: number): DropoutMask[] {
  const masks: DropoutMask[] = [];
  for (const node of graph.nodes) {
    if (!node.is('Dropout')) continue;
    const ratio = ratioOf(graph, node);
    if (ratio === 0) {
      graph.setInput(node, 2, undefined);
      continue;
    }
    const [x, y] = [node.inputs[0]!, node.outputs[0]!];
    const dims = [...shapes.get(y.name)!] as number[];
    const mask = graph.addInput(tensorInfo('dropout mask', DataType.FLOAT, dims));
    const product = graph.insert({
      opType: 'Mul',
      name: node.name,
      inputs: [x, mask],
      outputs: [graph.uniqueName(`${y.name} kept`)],
    });
    graph.replaceUses(y, product.outputs[0]!);
    graph.remove(node);
    shapes.set(product.outputs[0]!.name, dims);
    shapes.set(mask.name, dims);
    masks.push({ input: mask.name, dims, ratio, seed: seedOf(seed, masks.length, 0xd0) });
  }
  return masks;
}

function ratioOf(graph: Graph, node: Node): number {
  const [, given] = node.inputs;
  const constant = graph.constant(given);
  const ratio = given ? constant && readFloats(constant)[0] : 0.5;
  const [, mask] = node.outputs;
  if (ratio !== undefined && ratio >= 0 && ratio < 1 && !(mask && (mask.uses.size > 0 || graph.isGraphOutput(mask))))
    return ratio;
  throw new FlowCompressError(
    'unsupported',
    ratio === undefined
      ? 'The ratio of this Dropout is computed.'
      : 'This Dropout has a ratio outside [0, 1), or a mask that is read.',
    { node: node.label, hint: 'Export the model in inference mode, with constant ratios.' },
  );
}

/**
 * The mask for a batch: 0, or 1 / (1 - ratio) where the element is kept.
 * @param batch number of the batch since the training began
 * @param into where to write, product(dims) elements
 */
export function drawMask({ dims, ratio, seed }: DropoutMask, batch: number, into: Float32Array): HostTensor {
  const bound = ratio * 2 ** 32;
  const kept = 1 / (1 - ratio);
  // A counter and a mixing function (as in splitmix): masks are large, and drawn at every step.
  let counter = seedOf(seed, batch);
  for (let i = 0; i < into.length; i++) {
    counter = (counter + 0x9e3779b9) | 0;
    let bits = Math.imul(counter ^ (counter >>> 16), 0x85ebca6b);
    bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35);
    into[i] = (bits ^ (bits >>> 16)) >>> 0 < bound ? 0 : kept;
  }
  return { type: 'float32', dims, data: into };
}
