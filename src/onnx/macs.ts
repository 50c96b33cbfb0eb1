/** Multiply-accumulates of a model: those of convolutions, matrix products and recurrent layers. */
import type { FunctionProto, NodeProto } from 'onnx-buf';
import type { Graph, Node, Value } from './graph.js';
import { decodedDims, loadTimeValues } from './load-time.js';
import { subgraphsOf } from './walk.js';

/** Dims of values by name, as a traced run shows them. */
export type Shapes = ReadonlyMap<string, { readonly dims: readonly number[] }>;

type DimsOf = (value: Value | undefined) => readonly number[] | undefined;
/** Undefined where a shape is not known. */
type Rule = (node: Node, dims: DimsOf) => number | undefined;

const product = (dims: readonly number[]): number => dims.reduce((a, b) => a * b, 1);

/** Every output element sums over one group of input channels and the kernel; taps on the padding count. */
const convolution =
  (weightIndex: number): Rule =>
  (node, dims) => {
    const output = dims(node.outputs[0]);
    const weight = dims(node.inputs[weightIndex]);
    return output && weight && product(output) * product(weight.slice(1));
  };

/** Every input element reaches all output channels of its group through the whole kernel; taps outside the output count. */
const transposedConvolution: Rule = (node, dims) => {
  const input = dims(node.inputs[0]);
  const weight = dims(node.inputs[1]);
  return input && weight && product(input) * product(weight.slice(1));
};

const matrixProduct =
  (transpose?: string): Rule =>
  (node, dims) => {
    const output = dims(node.outputs[0]);
    const left = dims(node.inputs[0]);
    if (!output || !left || left.length === 0) return undefined;
    const transposed = transpose !== undefined && node.int(transpose, 0) !== 0 && left.length > 1;
    return product(output) * left[left.length - (transposed ? 2 : 1)];
  };

/** Per time step and sequence, one product with W [directions, gates x hidden, input] and one with R [.., hidden]. */
const recurrent: Rule = (node, dims) => {
  const input = dims(node.inputs[0]);
  const weight = dims(node.inputs[1]);
  const recurrence = dims(node.inputs[2]);
  return input && weight && recurrence && input[0] * input[1] * (product(weight) + product(recurrence));
};

/** Product of the extents of all indices, once per operand after the first. */
const einsum: Rule = (node, dims) => {
  const terms = node.string('equation', '').replaceAll(' ', '').split('->')[0].split(',');
  const extents = new Map<string, number>();
  let batch = 1;
  for (const [i, term] of terms.entries()) {
    const shape = dims(node.inputs[i]);
    if (!shape) return undefined;
    const [before, after] = term.split('...');
    [...before].forEach((label, axis) => extents.set(label, shape[axis]));
    if (after === undefined) continue;
    [...after].forEach((label, axis) => extents.set(label, shape[shape.length - after.length + axis]));
    batch = Math.max(batch, product(shape.slice(before.length, shape.length - after.length)));
  }
  return terms.length < 2 ? 0 : product([...extents.values()]) * batch * (terms.length - 1);
};

const packedMatrixProduct: Rule = (node, dims) => {
  const output = dims(node.outputs[0]);
  return output && product(output) * node.int('K', 0);
};

const RULES: ReadonlyMap<string, Rule> = new Map<string, Rule>([
  ['Conv', convolution(1)],
  ['DeformConv', convolution(1)],
  ['ConvInteger', convolution(1)],
  ['QLinearConv', convolution(3)],
  ['com.microsoft:FusedConv', convolution(1)],
  ['ConvTranspose', transposedConvolution],
  ['Gemm', matrixProduct('transA')],
  ['com.microsoft:FusedGemm', matrixProduct('transA')],
  ['com.microsoft:QGemm', matrixProduct('transA')],
  ['MatMul', matrixProduct()],
  ['MatMulInteger', matrixProduct()],
  ['QLinearMatMul', matrixProduct()],
  ['com.microsoft:FusedMatMul', matrixProduct('transA')],
  ['com.microsoft:DynamicQuantizeMatMul', matrixProduct()],
  ['com.microsoft:MatMulIntegerToFloat', matrixProduct()],
  ['com.microsoft:MatMulNBits', packedMatrixProduct],
  ['Einsum', einsum],
  ['LSTM', recurrent],
  ['GRU', recurrent],
  ['RNN', recurrent],
]);

/** Operators of the default domain that multiply and accumulate but for which there is no rule. */
const UNCOUNTED = new Set(['Attention', 'LinearAttention', 'CausalConvWithState']);

/** Operators of other domains that only work element by element or move data. */
const ELEMENTWISE = new Set(
  [
    'Gelu FastGelu QuickGelu BiasGelu SkipLayerNormalization LayerNormalization QuantizeLinear DequantizeLinear',
    'QLinearAdd QLinearMul QLinearSigmoid QLinearLeakyRelu QLinearSoftmax QLinearConcat QLinearWhere',
    'QLinearAveragePool QLinearGlobalAveragePool NhwcMaxPool',
  ].flatMap((line) => line.split(' ').map((op) => `com.microsoft:${op}`)),
);

function keyOf(domain: string, opType: string): string {
  return domain === '' || domain === 'ai.onnx' ? opType : `${domain}:${opType}`;
}

/** Multiply-accumulates of single nodes and of the whole graph, for one set of shapes. */
export interface MacCounter {
  /**
   * 0 for operators that do not multiply and accumulate and for those that run while the model is loaded; undefined where
   * a shape is missing, or the work is inside a loop, a function of the model or an operator this library does not know.
   */
  readonly ofNode: (node: Node) => number | undefined;
  /** Of all nodes; undefined when that of one node is. */
  readonly total: () => number | undefined;
}

/**
 * Counts for the shapes of one run, divided by the samples in it. Borders count like the middle, as is usual, and bias and
 * element-wise work count nothing.
 * @param shapes dims of at least the values of `valuesForMacs`
 * @param samples rows of the batch that was traced
 */
export function macCounter(graph: Graph, shapes: Shapes, samples = 1): MacCounter {
  const known = loadTimeValues(graph);
  const dims: DimsOf = (value) =>
    value && (shapes.get(value.name)?.dims ?? (known.has(value) ? decodedDims(graph, value) : undefined));
  const ofNode = (node: Node): number | undefined => {
    if (node.outputs.some((output) => output && known.has(output))) return 0;
    if (subgraphsOf(node.proto).some((body) => holdsWork(graph, body.node))) return undefined;
    const key = keyOf(node.domain, node.opType);
    const rule = RULES.get(key);
    if (rule) {
      const macs = rule(node, dims);
      return macs === undefined ? undefined : macs / samples;
    }
    return mayHoldWork(graph, node.proto) ? undefined : 0;
  };
  return {
    ofNode,
    total: () => {
      let sum = 0;
      for (const node of graph.nodes) {
        const macs = ofNode(node);
        if (macs === undefined) return undefined;
        sum += macs;
      }
      return Math.round(sum);
    },
  };
}

/** Multiply-accumulates of the graph for one sample; see {@link macCounter}. */
export function modelMacs(graph: Graph, shapes: Shapes, samples = 1): number | undefined {
  return macCounter(graph, shapes, samples).total();
}

/** Names of the computed values whose shapes the count needs. */
export function valuesForMacs(graph: Graph): Set<string> {
  const known = loadTimeValues(graph);
  const names = new Set<string>();
  for (const node of graph.nodes) {
    if (!RULES.has(keyOf(node.domain, node.opType))) continue;
    for (const value of [...node.inputs, node.outputs[0]]) {
      if (value && (!known.has(value) || decodedDims(graph, value) === undefined)) names.add(value.name);
    }
  }
  return names;
}

function holdsWork(graph: Graph, nodes: readonly NodeProto[]): boolean {
  return nodes.some(
    (node) =>
      RULES.has(keyOf(node.domain, node.opType)) ||
      mayHoldWork(graph, node) ||
      subgraphsOf(node).some((body) => holdsWork(graph, body.node)),
  );
}

/** True for a node without a rule that multiplies and accumulates, as far as one can know. */
function mayHoldWork(graph: Graph, node: NodeProto): boolean {
  const key = keyOf(node.domain, node.opType);
  const domain = node.domain === 'ai.onnx' ? '' : node.domain;
  const called: FunctionProto | undefined = graph.functions.find(
    (fn) => fn.name === node.opType && (fn.domain === 'ai.onnx' ? '' : fn.domain) === domain,
  );
  if (called) return holdsWork(graph, called.node);
  return domain === '' || domain === 'ai.onnx.ml' ? UNCOUNTED.has(key) : !ELEMENTWISE.has(key);
}
