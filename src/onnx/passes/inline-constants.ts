/** Constant nodes become initializers; Identity and inference-time Dropout disappear. */
import { TensorProto_DataType as DataType } from 'onnx-buf';
import type { Graph, Node, Value } from '../graph.js';
import { withFields } from '../message.js';
import { makeTensor, readInts } from '../tensor.js';

/** Runs the pass in place and returns how many nodes it removed. */
export function inlineConstants(graph: Graph): number {
  let removed = 0;
  for (const node of graph.nodes) {
    const output = node.outputs[0];
    if (!output) continue;
    if (node.is('Constant')) {
      if (graph.isGraphOutput(output) || !promote(graph, node, output)) continue;
      removed++;
    } else if (isPassThrough(graph, node) && node.inputs[0]) {
      const source = node.inputs[0];
      // An output must stay an output: keep the Identity that only gives a public name to an input or initializer.
      if (graph.isGraphOutput(output) && (!source.producer || graph.isGraphOutput(source))) continue;
      graph.replaceUses(output, source);
      graph.remove(node);
      removed++;
    }
  }
  return removed;
}

function isPassThrough(graph: Graph, node: Node): boolean {
  if (node.is('Identity')) return true;
  if (!node.is('Dropout')) return false;
  const mask = node.outputs[1];
  if (mask && (mask.uses.size > 0 || graph.isGraphOutput(mask))) return false;
  // Dropout passes its input on unless training_mode (an optional third input) may be true.
  const mode = node.inputs[2];
  if (!mode) return true;
  const known = graph.constant(mode);
  return known !== undefined && readInts(known)[0] === 0;
}

function promote(graph: Graph, node: Node, output: Value): boolean {
  const name = output.name;
  const tensor = constantTensor(node, name);
  if (!tensor) return false;
  const fresh = graph.addInitializer(withFields(tensor, { name: graph.uniqueName(`${name}_value`) }));
  graph.replaceUses(output, fresh);
  graph.remove(node);
  return true;
}

function constantTensor(node: Node, name: string) {
  const value = node.tensor('value');
  if (value) return value;
  const float = node.attributes.get('value_float');
  if (float) return makeTensor(name, DataType.FLOAT, [], Float32Array.of(float.f));
  const floats = node.attributes.get('value_floats');
  if (floats) return makeTensor(name, DataType.FLOAT, [floats.floats.length], Float32Array.from(floats.floats));
  const int = node.attributes.get('value_int');
  if (int) return makeTensor(name, DataType.INT64, [], BigInt64Array.of(int.i));
  const ints = node.attributes.get('value_ints');
  if (ints) return makeTensor(name, DataType.INT64, [ints.ints.length], BigInt64Array.from(ints.ints));
  return undefined;
}
