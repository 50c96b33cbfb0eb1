/**
 * The output of a layer as the rest of the network sees it: behind its bias and its activation function, whatever the
 * exporter made of that function (Relu, x * Sigmoid(x), the Erf or Tanh chain of a GELU, ...).
 */
import { TensorProto_DataType as DataType } from 'onnx-buf';
import { FlowCompressError } from '../errors.js';
import type { Graph, Node, Value } from '../onnx/graph.js';
import { elementCount } from '../onnx/tensor.js';
import { pointwiseRule, type Slope } from './pointwise.js';

/** Values by name, so that it holds for any Graph of the same model. */
export interface PostActivation {
  /** Pre-activation z: behind the bias and, where an activation follows one, the normalization. */
  readonly z: string;
  /** Post-activation sigma(z); equal to `z` without an activation function. */
  readonly output: string;
  /** The layer's output behind its bias alone, in the layer's own layout. */
  readonly linear: string;
  /** First outputs of the nodes that compute `output` from `z`, in order. */
  readonly path: readonly string[];
}

const MAX_HOPS = 8;
const MAX_REGION = 24;
const NORMALIZATIONS = new Set([
  'BatchNormalization',
  'InstanceNormalization',
  'GroupNormalization',
  'LayerNormalization',
  'RMSNormalization',
]);
const SHAPE_OPS = new Set(['Reshape', 'Squeeze', 'Unsqueeze', 'Flatten', 'Transpose', 'Slice', 'Identity']);
const CONSTANT_AFFINE = new Set(['Add', 'Sub', 'Mul', 'Div']);

/** Finds the activation function behind `start` (a layer's output, or a block's sum). */
export function postActivation(graph: Graph, start: Value): PostActivation {
  let z = start;
  let linear = start;
  for (let hop = 0; hop < MAX_HOPS; hop++) {
    const region = activationRegion(graph, z);
    if (region) return { z: z.name, output: region.output.name, linear: linear.name, path: region.path };
    const next = onlyReader(graph, z);
    const output = next?.outputs[0];
    if (!next || !output || next.domain !== '') break;
    if (CONSTANT_AFFINE.has(next.opType)) {
      const other = next.inputs[next.inputs[0] === z ? 1 : 0];
      if (!graph.constant(other)) break;
      if (next.opType === 'Add' && linear === z) linear = output;
    } else if (next.inputs[0] !== z || !(NORMALIZATIONS.has(next.opType) || SHAPE_OPS.has(next.opType))) {
      break;
    }
    z = output;
  }
  return { z: linear.name, output: linear.name, linear: linear.name, path: [] };
}

/**
 * Adds nodes that compute sigma'(z), one per element of `activation.output` (or one number for all).
 * @throws FlowCompressError `internal` when the graph is not that of the model the activation was found in.
 */
export function activationSlope(graph: Graph, activation: PostActivation): Slope {
  const slopes = new Map<string, Slope>([[activation.z, 1]]);
  for (const name of activation.path) {
    const node = graph.mustGet(name).producer;
    const rule = node && pointwiseRule(node);
    if (!node || !rule) throw new FlowCompressError('internal', `'${name}' is not part of an activation function.`);
    const inputs = node.inputs.map((value) => (value && slopes.get(value.name)) ?? 0);
    slopes.set(name, rule.slope({ graph, node, slopes: inputs }));
  }
  return slopes.get(activation.output)!;
}

/** The one node that reads a value, if there is one and the value is no graph output. */
export function onlyReader(graph: Graph, value: Value): Node | undefined {
  if (value.uses.size !== 1 || graph.isGraphOutput(value)) return undefined;
  const [use] = value.uses;
  return use && use.index >= 0 ? use.node : undefined;
}

/**
 * The smallest set of nodes that computes one value from `z` alone, element by element and not as an affine map, such
 * that nothing else reads `z` or what lies between; then the scalings that follow it.
 */
function activationRegion(graph: Graph, z: Value): { output: Value; path: string[] } | undefined {
  const inside = new Set<Value>([z]);
  const nodes = new Set<Node>();
  let bent = false;
  for (;;) {
    const next = nextMember(graph, inside, nodes);
    if (!next) return undefined;
    nodes.add(next);
    inside.add(next.outputs[0]!);
    const varying = next.inputs.filter((value) => value && inside.has(value)).length;
    const rule = pointwiseRule(next)!;
    const flat = rule.affine && (varying === 1 || next.opType === 'Add' || next.opType === 'Sub');
    bent ||= !flat || (next.opType === 'Div' && inside.has(next.inputs[1]!));
    const exits = [...inside].filter((value) => leaves(graph, value, nodes));
    const [exit] = exits;
    if (bent && exits.length === 1 && exit !== z) return withScalings(graph, exit!, inside, nodes);
    if (nodes.size >= MAX_REGION || exits.length === 0) return undefined;
  }
}

function nextMember(graph: Graph, inside: ReadonlySet<Value>, nodes: ReadonlySet<Node>): Node | undefined {
  for (const value of inside) {
    for (const { node, index } of value.uses) {
      if (index >= 0 && !nodes.has(node) && isMember(graph, node, inside)) return node;
    }
  }
  return undefined;
}

/** Element-wise with a known derivative, and reads nothing but the region and constants (scalars, or a PRelu's slopes). */
function isMember(graph: Graph, node: Node, inside: ReadonlySet<Value>): boolean {
  if (!pointwiseRule(node) || node.outputs.length !== 1 || !node.outputs[0]) return false;
  return node.inputs.every((value, i) => {
    if (!value) return true;
    if (inside.has(value)) return i === 0 || CONSTANT_AFFINE.has(node.opType);
    const tensor = graph.constant(value);
    if (!tensor || (tensor.dataType !== Number(DataType.FLOAT) && node.opType !== 'Pow')) return false;
    return elementCount(tensor.dims) === 1 || (node.opType === 'PRelu' && i === 1);
  });
}

/** True when something outside the region reads the value. */
function leaves(graph: Graph, value: Value, nodes: ReadonlySet<Node>): boolean {
  if (graph.isGraphOutput(value)) return true;
  for (const use of value.uses) if (use.index < 0 || !nodes.has(use.node)) return true;
  return false;
}

/** Takes in the element-wise nodes that alone read the exit, such as the last halving of a GELU. */
function withScalings(
  graph: Graph,
  exit: Value,
  inside: Set<Value>,
  nodes: Set<Node>,
): { output: Value; path: string[] } {
  let output = exit;
  while (nodes.size < MAX_REGION) {
    const next = onlyReader(graph, output);
    if (!next || !isMember(graph, next, inside)) break;
    nodes.add(next);
    output = next.outputs[0]!;
    inside.add(output);
  }
  return { output, path: [...nodes].map((node) => node.outputs[0]!.name) };
}
