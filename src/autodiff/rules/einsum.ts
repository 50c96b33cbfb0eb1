/** Einsum: the gradient in an operand is an Einsum of the output's gradient and the other operands. */
import { FlowCompressError } from '../../errors.js';
import { stringAttribute } from '../../onnx/attributes.js';
import { DataType } from '../../onnx/dtypes.js';
import type { Node, Value } from '../../onnx/graph.js';
import { constantOf, unsqueeze } from '../../onnx/ops.js';
import { makeTensor } from '../../onnx/tensor.js';
import type { GradientContext, GradientRule, GradientRules, Shape } from '../rule.js';
import { knownShape } from '../shapes.js';

const LETTERS = 'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ';
const ELLIPSIS = '...';

/** One letter per axis, of every operand and of the output. */
interface Equation {
  readonly terms: readonly string[];
  readonly output: string;
  /** Letters that the equation does not use. */
  readonly free: string[];
}

/**
 * Spells out what the equation leaves implicit: the output, and the axes behind `...`, which get letters of their own.
 * @param ranks of the operands
 */
function parse(node: Node, ranks: readonly number[]): Equation {
  const equation = node.string('equation', '').replaceAll(' ', '');
  const [left, right] = equation.split('->') as [string, string | undefined];
  const terms = left.split(',');
  const free = [...LETTERS].filter((letter) => !equation.includes(letter));
  const hidden = terms.map((term, k) => (term.includes(ELLIPSIS) ? ranks[k]! - term.length + ELLIPSIS.length : 0));
  const batch = free.splice(0, Math.max(...hidden)).join('');
  const spell = (term: string, count: number): string =>
    term.replace(ELLIPSIS, () => (count > 0 ? batch.slice(-count) : ''));
  const once = [...LETTERS].filter((letter) => left.split(letter).length === 2);
  const implicit = ELLIPSIS + once.sort().join('');
  const output = spell(right ?? implicit, batch.length);
  const spelled = terms.map((term, k) => spell(term, hidden[k]!));
  if (spelled.some((term, k) => term.length !== ranks[k]) || new Set(output).size !== output.length)
    throw new FlowCompressError('unsupported', `The equation '${equation}' has no gradient rule.`, {
      node: node.label,
      hint: 'Write it with one letter per axis and distinct output letters.',
    });
  return { terms: spelled, output, free };
}

const einsumRule: GradientRule = (context) => {
  const { node, needs, shapeOf } = context;
  const ranks = node.inputs.map((input) => shapeOf(input!).length);
  const equation = parse(node, ranks);
  return node.inputs.map((_, k) => (needs(k) ? gradientIn(context, equation, k) : undefined));
};

/** A factor of the product that a gradient is: one letter and size per axis. */
interface Factor {
  readonly term: string;
  readonly value: Value;
  readonly shape: Shape;
}

/**
 * Contracts the output's gradient with the other operands over all letters that the operand lacks. Letters that only the
 * operand has were summed over: the gradient is repeated along them. Where its size of 1 was broadcast, it is summed.
 */
function gradientIn(context: GradientContext, { terms, output, free }: Equation, k: number): Value {
  const { graph, node, gradients, shapeOf } = context;
  const x = node.inputs[k]!;
  const shape = shapeOf(x);
  const factors: Factor[] = [{ term: output, value: gradients[0]!, shape: shapeOf(node.outputs[0]!) }];
  node.inputs.forEach((input, i) => {
    if (i !== k) factors.push({ term: terms[i]!, value: input!, shape: shapeOf(input!) });
  });
  const { term, diagonals } = distinct(context, terms[k]!, shape, free);
  factors.push(...diagonals);
  const sizesOf = (letter: string): Shape =>
    factors.flatMap((factor) => factor.shape.filter((_, axis) => factor.term[axis] === letter));
  const isKept = (letter: string, axis: number): boolean => {
    const sizes = sizesOf(letter);
    const isLong = sizes.some((size) => size !== 1);
    return shape[axis] === 1 ? sizes.length > 0 && !isLong : isLong;
  };
  const kept = [...term].filter(isKept).join('');
  const missing = [...term].flatMap((letter, axis) => (isKept(letter, axis) ? [] : [axis]));
  const equation = `${factors.map((factor) => factor.term).join(',')}->${kept}`;
  const product =
    factors.length === 1 && kept === output
      ? gradients[0]!
      : graph.insertOp(
          'Einsum',
          factors.map(({ value }) => value),
          [stringAttribute('equation', equation)],
        );
  if (missing.length === 0) return product;
  const aligned = unsqueeze(graph, product, missing);
  if (missing.every((axis) => shape[axis] === 1)) return aligned;
  const known = knownShape(shape);
  const dims = known ? constantOf(graph, known, 'int64') : graph.insertOp('Shape', [x]);
  return graph.insertOp('Expand', [aligned, dims]);
}

/**
 * A term in which every letter occurs once. A repeated letter reads a diagonal; the gradient is zero next to it, which
 * a factor, the identity matrix in the letter and its stand-in, says.
 */
function distinct(
  { graph, node }: GradientContext,
  term: string,
  shape: Shape,
  free: readonly string[],
): { term: string; diagonals: Factor[] } {
  const spare = [...free];
  const diagonals: Factor[] = [];
  const letters = [...term].map((letter, axis) => {
    if (term.indexOf(letter) === axis) return letter;
    const [size, other] = [shape[axis], spare.shift()];
    if (size === undefined || other === undefined)
      throw new FlowCompressError('unsupported', 'This Einsum reads a diagonal of varying size.', {
        node: node.label,
        hint: 'Fix the sizes of the model.',
      });
    const ones = Float32Array.from({ length: size * size }, (_, i) => (i % (size + 1) === 0 ? 1 : 0));
    const identity = makeTensor(graph.uniqueName('identity'), DataType.FLOAT, [size, size], ones);
    diagonals.push({ term: letter + other, value: graph.addInitializer(identity), shape: [size, size] });
    return other;
  });
  return { term: letters.join(''), diagonals };
}

export const einsum: GradientRules = { Einsum: einsumRule };
