/** Operators that work element by element: indices of equal place go together. What matters is where 0 stays 0. */
import type { Node } from '../../onnx/graph.js';
import { readFloats } from '../../onnx/tensor.js';
import type { PruningRule, PruningRules } from '../rule.js';
import type { Ties } from '../ties.js';
import { followBroadcast } from './broadcasting.js';

/** f(0) = 0. */
const KEEPS_ZERO =
  `Relu LeakyRelu Elu Selu Celu ThresholdedRelu HardSwish Mish Gelu Swish Tanh Softsign Erf Sqrt Abs Neg
  Sign Floor Ceil Round Sin Tan Asin Atan Sinh Asinh Atanh Shrink Identity Cast BitShift`.split(/\s+/);
/** f(0) is a number other than 0. */
const LOSES_ZERO = 'Sigmoid HardSigmoid Softplus Exp Cos Acos Cosh Not IsNaN IsInf'.split(' ');
/** f(0) is not finite: with zeros in place of what is removed nothing could be checked. */
const SINGULAR_AT_ZERO = ['Log', 'Reciprocal', 'Acosh'];

const BROADCAST: Readonly<Record<string, 'any' | 'all' | 'none'>> = {
  ...Object.fromEntries(['Add', 'Sub', 'Sum', 'Mean', 'Max', 'Min'].map((op) => [op, 'all' as const])),
  ...Object.fromEntries(['Mul', 'And'].map((op) => [op, 'any' as const])),
  ...Object.fromEntries(
    'Or Xor Equal Less LessOrEqual Greater GreaterOrEqual BitwiseAnd BitwiseOr BitwiseXor'
      .split(' ')
      .map((op) => [op, 'none' as const]),
  ),
};

function broadcast(node: Node, ties: Ties, zeros: 'any' | 'all' | 'none', from = 0): void {
  const operands = node.inputs.slice(from).filter((input) => input !== undefined);
  followBroadcast(
    ties,
    operands.map((input) => ties.mustHave(input)),
    ties.mustHave(node.outputs[0]),
    zeros,
  );
}

function unary(zeros: 'keeps' | 'loses'): PruningRule {
  return {
    follow: (node, ties) => {
      const input = ties.mustHave(node.inputs[0]);
      followBroadcast(ties, [input], ties.mustHave(node.outputs[0]), zeros === 'keeps' ? 'all' : 'none');
    },
  };
}

const singular: PruningRule = {
  follow: (node, ties) => {
    broadcast(node, ties, 'none');
    for (const axis of ties.mustHave(node.inputs[0])) refuseZeros(ties, axis);
  },
};

function refuseZeros(ties: Ties, axis: Parameters<Ties['isZero']>[0]): void {
  for (let i = 0; i < axis.size; i++) {
    if (ties.isZero(axis, i)) ties.fixIndex(axis, i, 'is not finite at 0');
  }
}

const divide: PruningRule = {
  follow: (node, ties) => {
    const [dividend, divisor] = node.inputs.map((input) => ties.mustHave(input));
    const result = ties.mustHave(node.outputs[0]);
    followBroadcast(ties, [divisor], result, 'none');
    followBroadcast(ties, [dividend], result, 'all');
    for (const axis of divisor) refuseZeros(ties, axis);
  },
};

/** The number in a constant scalar, or undefined. */
function scalarOf(ties: Ties, node: Node, index: number): number | undefined {
  const tensor = ties.graph.constant(node.inputs[index]);
  if (!tensor) return undefined;
  const values = readFloats(tensor);
  return values.length === 1 ? values[0] : undefined;
}

const power: PruningRule = {
  follow: (node, ties) => {
    const exponent = scalarOf(ties, node, 1);
    broadcast(node, ties, 'none');
    const [base] = node.inputs.map((input) => ties.mustHave(input));
    if (exponent !== undefined && exponent > 0) {
      followBroadcast(ties, [base], ties.mustHave(node.outputs[0]), 'all');
    } else for (const axis of base) refuseZeros(ties, axis);
  },
};

const clip: PruningRule = {
  follow: (node, ties) => {
    const bound = (index: number, attribute: string, open: number): number =>
      node.inputs[index] ? (scalarOf(ties, node, index) ?? NaN) : node.float(attribute, open);
    // A bound that is not known is NaN: 0 is between no such bounds.
    const zero = bound(1, 'min', -Infinity) <= 0 && bound(2, 'max', Infinity) >= 0;
    const input = ties.mustHave(node.inputs[0]);
    followBroadcast(ties, [input], ties.mustHave(node.outputs[0]), zero ? 'all' : 'none');
  },
};

/** Zero where the data are; the slope has the shape of the data or less. */
const prelu: PruningRule = {
  follow: (node, ties) => {
    const [data, slope] = node.inputs.map((input) => ties.mustHave(input));
    const result = ties.mustHave(node.outputs[0]);
    followBroadcast(ties, [slope], result, 'none');
    followBroadcast(ties, [data], result, 'all');
  },
};

const where: PruningRule = {
  follow: (node, ties) => {
    const [condition, ...branches] = node.inputs.map((input) => ties.mustHave(input));
    const result = ties.mustHave(node.outputs[0]);
    followBroadcast(ties, [condition], result, 'none');
    followBroadcast(ties, branches, result, 'all');
  },
};

/** In training mode the mask is random; its zeros are where the engine puts them. */
const dropout: PruningRule = {
  follow: (node, ties) => {
    for (const output of node.outputs) {
      if (output) followBroadcast(ties, [ties.mustHave(node.inputs[0])], ties.mustHave(output), 'all');
    }
  },
};

const gelu: PruningRule = {
  follow: (node, ties) => {
    broadcast(node, ties, 'all');
  },
};

export const elementwise: PruningRules = {
  ...Object.fromEntries(KEEPS_ZERO.map((op) => [op, unary('keeps')])),
  ...Object.fromEntries(LOSES_ZERO.map((op) => [op, unary('loses')])),
  ...Object.fromEntries(SINGULAR_AT_ZERO.map((op) => [op, singular])),
  ...Object.fromEntries(
    Object.entries(BROADCAST).map(([op, zeros]): [string, PruningRule] => [
      op,
      {
        follow: (node, ties) => {
          broadcast(node, ties, zeros);
        },
      },
    ]),
  ),
  ...{ Div: divide, Pow: power, Clip: clip, PRelu: prelu, Where: where, Dropout: dropout },
  ...Object.fromEntries(['Gelu', 'FastGelu', 'BiasGelu', 'QuickGelu'].map((op) => [`com.microsoft:${op}`, gelu])),
};
