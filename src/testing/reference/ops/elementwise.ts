/** Operators on single elements of broadcast operands. */
import { map, zip } from '../array.js';
import type { ReferenceOperator } from '../evaluate.js';

const unary =
  (f: (x: number) => number): ReferenceOperator =>
  ([x]) => [map(x!, f)];
const binary =
  (f: (a: number, b: number) => number): ReferenceOperator =>
  ([a, b]) => [zip(f, a!, b!)];

export const elementwise: Readonly<Record<string, ReferenceOperator>> = {
  Add: binary((a, b) => a + b),
  Sub: binary((a, b) => a - b),
  Mul: binary((a, b) => a * b),
  Div: binary((a, b) => a / b),
  Sum: (inputs) => [zip((...values) => values.reduce((a, b) => a + b, 0), ...inputs.map((x) => x!))],
  Neg: unary((x) => -x),
  Identity: unary((x) => x),
};
