/** Which computed values do not depend on what the model is fed: constants, and values made from shapes alone. */
import type { TensorProto } from 'onnx-buf';
import { findDataType } from '../dtypes.js';
import type { Graph, Node, Value } from '../graph.js';
import { isExchangeable } from '../host-tensor.js';
import { tensorByteLength } from '../tensor.js';
import { elementTypeOf } from './infer.js';

/** `constant`: no input of the model matters; `shape`: only the shapes of values matter. */
export type StaticKind = 'constant' | 'shape';

const RANDOM = new Set(
  'RandomNormal RandomNormalLike RandomUniform RandomUniformLike Multinomial Bernoulli Dropout'.split(' '),
);

/** Larger values are folded only where that does not make the file larger. */
const SMALL = 1024;
/** No folded value that takes the place of a shorter recipe is larger than this. */
const LIMIT = 64 * 1024;

/** The kind of every value that a node computes and that is static; inner values of subgraphs are left alone. */
export function staticValues(graph: Graph): Map<Value, StaticKind> {
  const kinds = new Map<Value, StaticKind>();
  for (const node of graph.nodes) {
    const kind = kindOf(node, kinds);
    if (!kind) continue;
    for (const output of node.outputs) if (output) kinds.set(output, kind);
  }
  return kinds;
}

function kindOf(node: Node, kinds: ReadonlyMap<Value, StaticKind>): StaticKind | undefined {
  if (node.domain !== '' || RANDOM.has(node.opType)) return undefined;
  if ([...node.attributes.values()].some((a) => a.g !== undefined || a.graphs.length > 0)) return undefined;
  // The stored codes of a quantized weight are smaller than what they stand for.
  if (node.opType === 'DequantizeLinear') return undefined;
  if (node.outputs.some((v) => v && !isExchangeable(elementTypeOf(v) ?? 1))) return undefined;
  if (node.opType === 'Constant') return node.tensor('value') ? 'constant' : undefined;
  let kind: StaticKind = 'constant';
  for (const input of node.inputs) {
    if (!input || input.isInitializer) continue;
    const known = kinds.get(input);
    if (!known && node.opType !== 'Shape' && node.opType !== 'Size') return undefined;
    if (known !== 'constant') kind = 'shape';
  }
  return kind;
}

/** Whether storing `value`, of `bytes` bytes, is worth it: it is small, or what it is made of goes in exchange. */
export function worthFolding(
  graph: Graph,
  value: Value,
  bytes: number,
  kinds: ReadonlyMap<Value, StaticKind>,
): boolean {
  if (bytes <= SMALL) return true;
  if (kinds.get(value) === 'shape') return bytes <= LIMIT;
  const leaves = leavesOf(value);
  const replaced = [...leaves].every((leaf) =>
    [...leaf.uses].every((use) => use.node.outputs.every((v) => v && kinds.has(v))),
  );
  if (!replaced) return false;
  const tensors = [...leaves].flatMap((leaf) => graph.constant(leaf) ?? []);
  if (bytes <= tensors.reduce((sum, tensor) => sum + tensorByteLength(tensor), 0)) return true;
  return bytes <= LIMIT && !tensors.some(isPacked);
}

/** Stored in 16 bits or less: the recipe is there to save bytes. */
function isPacked(tensor: TensorProto): boolean {
  const type = findDataType(tensor.dataType);
  return type !== undefined && type.kind !== 'bool' && type.bits > 0 && type.bits <= 16;
}

/** Stored values that `value` is computed from. */
function leavesOf(value: Value): Set<Value> {
  const leaves = new Set<Value>();
  const seen = new Set<Value>([value]);
  const pending = [value];
  for (let at = pending.pop(); at; at = pending.pop()) {
    if (!at.producer || at.producer.is('Constant')) {
      leaves.add(at);
      continue;
    }
    for (const input of at.producer.inputs) {
      if (!input || seen.has(input)) continue;
      seen.add(input);
      pending.push(input);
    }
  }
  return leaves;
}
