/** MatMul (numpy semantics: batched, broadcast, vectors) and Gemm. */
import type { Graph, Value } from '../../onnx/graph.js';
import { floatAttribute, intAttribute } from '../../onnx/attributes.js';
import { constantOf, reshape, transpose, unsqueeze } from '../../onnx/ops.js';
import { sumTo } from '../broadcast.js';
import type { GradientContext, GradientRule, GradientRules, Shape } from '../rule.js';

const matMul: GradientRule = (context) => {
  const { graph, node, gradients, needs, shapeOf } = context;
  const [a, b] = [node.inputs[0]!, node.inputs[1]!];
  const [shapeA, shapeB] = [shapeOf(a), shapeOf(b)];
  if (shapeA.length === 1 || shapeB.length === 1) return withVectors(context, shapeA, shapeB);
  const gradient = gradients[0]!;
  const batch = shapeOf(node.outputs[0]!).slice(0, -2);
  const inA = (): Value => {
    const product = graph.insertOp('MatMul', [gradient, swapped(graph, b, shapeB.length)]);
    return sumTo(context, product, [...batch, ...shapeA.slice(-2)], shapeA);
  };
  const inB = (): Value => {
    // The weight of a layer: the batch is one long axis of a single product instead of a sum of small ones.
    if (shapeB.length === 2 && shapeA.length > 2) {
      const [rows, columns] = [shapeB[0]!, shapeB[1]!];
      const flat = transpose(graph, reshape(graph, a, [-1, rows]), [1, 0]);
      return graph.insertOp('MatMul', [flat, reshape(graph, gradient, [-1, columns])]);
    }
    const product = graph.insertOp('MatMul', [swapped(graph, a, shapeA.length), gradient]);
    return sumTo(context, product, [...batch, ...shapeB.slice(-2)], shapeB);
  };
  return [needs(0) ? inA() : undefined, needs(1) ? inB() : undefined];
};

/** A vector on either side: with its missing axis put back the product is one of matrices. */
function withVectors(context: GradientContext, shapeA: Shape, shapeB: Shape): (Value | undefined)[] {
  const { graph, node, gradients, needs } = context;
  const [a, b] = [node.inputs[0]!, node.inputs[1]!];
  const matrixA = shapeA.length === 1 ? unsqueeze(graph, a, [0]) : a;
  const matrixB = shapeB.length === 1 ? unsqueeze(graph, b, [1]) : b;
  const axes = [...(shapeA.length === 1 ? [-2] : []), ...(shapeB.length === 1 ? [-1] : [])];
  const gradient = axes.length === 2 ? reshape(graph, gradients[0]!, [1, 1]) : unsqueeze(graph, gradients[0]!, axes);
  const [fullA, fullB] = [shapeA.length === 1 ? [1, ...shapeA] : shapeA, shapeB.length === 1 ? [...shapeB, 1] : shapeB];
  const lead = fullA.length > fullB.length ? fullA.slice(0, -2) : fullB.slice(0, -2);
  const part = (left: Value, right: Value, from: Shape, to: Shape): Value => {
    const product = graph.insertOp('MatMul', [left, right]);
    const target = from.length === to.length ? from : to;
    const summed = sumTo(context, product, [...lead, ...from.slice(-2)], from);
    return from === target ? summed : reshape(graph, summed, [-1]);
  };
  return [
    needs(0) ? part(gradient, swapped(graph, matrixB, fullB.length), fullA, shapeA) : undefined,
    needs(1) ? part(swapped(graph, matrixA, fullA.length), gradient, fullB, shapeB) : undefined,
  ];
}

/** The last two axes exchanged. */
function swapped(graph: Graph, value: Value, rank: number): Value {
  const axes = Array.from({ length: rank }, (_, i) => i);
  return transpose(graph, value, [...axes.slice(0, -2), rank - 1, rank - 2]);
}

/** Y = alpha A' B' + beta C, A' and B' transposed or not. */
const gemm: GradientRule = (context) => {
  const { graph, node, gradients, needs, shapeOf } = context;
  const [a, b, c] = node.inputs as [Value, Value, Value | undefined];
  const [transA, transB] = [node.int('transA', 0), node.int('transB', 0)];
  const [alpha, beta] = [node.float('alpha', 1), node.float('beta', 1)];
  const gradient = gradients[0]!;
  const product = (left: Value, right: Value, transLeft: number, transRight: number): Value =>
    graph.insertOp(
      'Gemm',
      [left, right],
      [floatAttribute('alpha', alpha), intAttribute('transA', transLeft), intAttribute('transB', transRight)],
    );
  const inA = (): Value => (transA ? product(b, gradient, transB, 1) : product(gradient, b, 0, transB ? 0 : 1));
  const inB = (): Value => (transB ? product(gradient, a, 1, transA) : product(a, gradient, transA ? 0 : 1, 0));
  const inC = (value: Value): Value => {
    const summed = sumTo(context, gradient, shapeOf(node.outputs[0]!), shapeOf(value));
    if (beta === 1) return summed;
    return graph.insertOp('Mul', [summed, constantOf(graph, [beta], 'float32', { scalar: true })]);
  };
  return [needs(0) ? inA() : undefined, needs(1) ? inB() : undefined, c && needs(2) ? inC(c) : undefined];
};

export const matmul: GradientRules = { MatMul: matMul, Gemm: gemm };
