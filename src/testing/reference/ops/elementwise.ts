/** Operators on single elements of broadcast operands. */
import { dataTypeInfo } from '../../../onnx/dtypes.js';
import { randomStream } from '../../../data/random.js';
import { map, zip, type NdArray } from '../array.js';
import type { ReferenceOperator } from '../operator.js';

const unary =
  (f: (x: number) => number): ReferenceOperator =>
  ([x]) => [map(x!, f)];
const binary =
  (f: (a: number, b: number) => number): ReferenceOperator =>
  ([a, b]) => [zip(f, a!, b!)];
/** Of any number of operands. */
const nary =
  (f: (...values: number[]) => number): ReferenceOperator =>
  (inputs) => [zip(f, ...inputs.map((x) => x!))];

/**
 * By the series 2/sqrt(pi) exp(-x^2) sum 2^n x^(2n+1) / (1 3 5 ... (2n+1)), whose terms all have one sign (Abramowitz and
 * Stegun 7.1.6).
 */
export function erf(x: number): number {
  if (Math.abs(x) > 6) return Math.sign(x);
  let [term, sum] = [x, x];
  for (let n = 1; Math.abs(term) > 1e-18 * Math.abs(sum); n++) {
    term *= (2 * x * x) / (2 * n + 1);
    sum += term;
  }
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
}

/** To the nearest integer, halves to the even one. */
export function roundHalfToEven(x: number): number {
  const below = Math.floor(x);
  if (x - below !== 0.5) return Math.round(x);
  return below % 2 === 0 ? below : below + 1;
}

const truth = (f: (...values: number[]) => boolean): ReferenceOperator => nary((...values) => (f(...values) ? 1 : 0));

/** Floats of every width are the same number here; integers lose their fraction. */
const cast: ReferenceOperator = ([x], node) => {
  const { kind } = dataTypeInfo(node.int('to', 1));
  if (kind === 'float') return [x!];
  return [map(x!, kind === 'bool' ? (v) => (v === 0 ? 0 : 1) : Math.trunc)];
};

/** In training the mask comes from a fixed stream, so that two runs drop the same elements. */
const dropout: ReferenceOperator = ([x, ratio, training], node) => {
  const rate = ratio?.data[0] ?? 0.5;
  if (!training?.data[0] || rate === 0) return [x!, map(x!, () => 1)];
  const random = randomStream(node.int('seed', 0));
  const mask: NdArray = map(x!, () => (random.float() >= rate ? 1 : 0));
  return [zip((v, kept) => (v * kept) / (1 - rate), x!, mask), mask];
};

export const elementwise: Readonly<Record<string, ReferenceOperator>> = {
  Add: binary((a, b) => a + b),
  Sub: binary((a, b) => a - b),
  Mul: binary((a, b) => a * b),
  Div: binary((a, b) => a / b),
  Pow: binary((a, b) => a ** b),
  Sum: nary((...values) => values.reduce((a, b) => a + b, 0)),
  Mean: nary((...values) => values.reduce((a, b) => a + b, 0) / values.length),
  Min: nary(Math.min),
  Max: nary(Math.max),
  Neg: unary((x) => -x),
  Abs: unary(Math.abs),
  Exp: unary(Math.exp),
  Log: unary(Math.log),
  Sqrt: unary(Math.sqrt),
  Reciprocal: unary((x) => 1 / x),
  Erf: unary(erf),
  Sin: unary(Math.sin),
  Cos: unary(Math.cos),
  Tan: unary(Math.tan),
  Asin: unary(Math.asin),
  Acos: unary(Math.acos),
  Atan: unary(Math.atan),
  Sinh: unary(Math.sinh),
  Cosh: unary(Math.cosh),
  Asinh: unary(Math.asinh),
  Acosh: unary(Math.acosh),
  Atanh: unary(Math.atanh),
  Sign: unary(Math.sign),
  Floor: unary(Math.floor),
  Ceil: unary(Math.ceil),
  Round: unary(roundHalfToEven),
  Where: ([condition, a, b]) => [zip((c, x, y) => (c === 0 ? y : x), condition!, a!, b!)],
  Clip: ([x, low, high]) => [
    map(x!, (v) => Math.min(Math.max(v, low?.data[0] ?? -Infinity), high?.data[0] ?? Infinity)),
  ],
  Identity: unary((x) => x),
  Cast: cast,
  Dropout: dropout,
  Equal: truth((a, b) => a === b),
  Greater: truth((a, b) => a! > b!),
  GreaterOrEqual: truth((a, b) => a! >= b!),
  Less: truth((a, b) => a! < b!),
  LessOrEqual: truth((a, b) => a! <= b!),
  And: truth((a, b) => a !== 0 && b !== 0),
  Or: truth((a, b) => a !== 0 || b !== 0),
  Xor: truth((a, b) => (a !== 0) !== (b !== 0)),
  Not: truth((a) => a === 0),
  IsNaN: truth((a) => Number.isNaN(a)),
  IsInf: ([x], node) => {
    const [positive, negative] = [node.int('detect_positive', 1), node.int('detect_negative', 1)];
    return [map(x!, (v) => ((positive && v === Infinity) || (negative && v === -Infinity) ? 1 : 0))];
  },
};
