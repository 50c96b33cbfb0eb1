import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { intAttribute } from '../../onnx/attributes.js';
import { DataType } from '../../onnx/dtypes.js';
import { Graph } from '../../onnx/graph.js';
import { makeTensor } from '../../onnx/tensor.js';
import { checkGradients, randomArray } from '../../testing/check-gradients.js';
import { checkInEngine, checkRule } from '../../testing/check-in-engine.js';
import { checkReference } from '../../testing/check-reference.js';
import { gradientModel } from '../../testing/gradient-model.js';
import { info, op, run, tinyModel } from '../../testing/graph-writing.js';
import { array, map, type NdArray } from '../../testing/reference/array.js';
import { evaluate } from '../../testing/reference/evaluate.js';

/** Numbers between two bounds, none of them near another multiple of 1/8 than the bounds'. */
function between(dims: readonly number[], low: number, high: number, seed = 1): NdArray {
  return map(randomArray(dims, seed), (v) => low + (high - low) * (0.5 + 0.4 * Math.sin(7 * v)));
}

const floats = (name: string, dims: number[], values: number[]) => makeTensor(name, DataType.FLOAT, dims, values);

describe('functions of one element', () => {
  it.each<[string, number, number]>([
    ['Neg', -1, 1],
    ['Abs', 0.1, 1],
    ['Abs', -1, -0.1],
    ['Exp', -1, 1],
    ['Log', 0.5, 2],
    ['Sqrt', 0.5, 2],
    ['Reciprocal', 0.5, 2],
    ['Reciprocal', -2, -0.5],
    ['Erf', -2.5, 2.5],
    ['Sin', -2, 2],
    ['Cos', -2, 2],
    ['Tan', -1, 1],
    ['Asin', -0.8, 0.8],
    ['Acos', -0.8, 0.8],
    ['Atan', -2, 2],
    ['Sinh', -1, 1],
    ['Cosh', -1, 1],
    ['Asinh', -2, 2],
    ['Acosh', 1.5, 3],
    ['Atanh', -0.8, 0.8],
    ['Identity', -1, 1],
  ])('%s between %f and %f', async (name, low, high) => {
    const model = tinyModel({
      inputs: [info('x', ['N', 3])],
      outputs: [info('y')],
      nodes: [op(`${name} x -> y`)],
    });
    await checkRule(model, { x: between([4, 3], low, high) }, { others: [{ x: between([2, 3], low, high, 2) }] });
  });

  it('the reference rounds, compares and combines truth values as ONNX Runtime does', async () => {
    const unary = ['Sign', 'Floor', 'Ceil', 'Round', 'IsNaN', 'IsInf'];
    const compare = ['Equal', 'Greater', 'GreaterOrEqual', 'Less', 'LessOrEqual'];
    const logic = ['And', 'Or', 'Xor'];
    const names = [...unary, ...compare, ...logic, 'Not', 'Integer', 'Truth'];
    const model = tinyModel({
      opset: 20,
      irVersion: 9,
      inputs: [info('x', [6]), info('z', [1])],
      outputs: names.map((name) => info(`out${name}`, [6], DataType.FLOAT)),
      nodes: [
        ...['Sign', 'Floor', 'Ceil', 'Round'].map((name) => op(`${name} x -> out${name}`)),
        ...['IsNaN', 'IsInf'].map((name) => op(`${name} x -> bool${name}`)),
        ...compare.map((name) => op(`${name} x z -> bool${name}`)),
        ...logic.map((name) => op(`${name} boolGreater boolLessOrEqual -> bool${name}`)),
        op('Not boolLess -> boolNot'),
        op('Cast x -> integer', [intAttribute('to', DataType.INT32)]),
        op('Cast integer -> outInteger', [intAttribute('to', DataType.FLOAT)]),
        op('Cast x -> boolTruth', [intAttribute('to', DataType.BOOL)]),
        ...['IsNaN', 'IsInf', ...compare, ...logic, 'Not', 'Truth'].map((name) =>
          op(`Cast bool${name} -> out${name}`, [intAttribute('to', DataType.FLOAT)]),
        ),
      ],
    });
    await checkReference(model, { x: array([6], [-2.5, -0.5, 0, 0.5, 1.5, 2.7]), z: array([1], [0.5]) });
  });
});

describe('Pow', () => {
  const power = (exponent: number[], dims: number[], x = [2, 3]) =>
    tinyModel({
      inputs: [info('x', ['N', ...x.slice(1)])],
      outputs: [info('y')],
      nodes: [op('Pow x e -> y')],
      initializers: [floats('e', dims, exponent)],
    });

  it.each([0, 1, 2, 3, 0.5, -1, 1.7, -2.5])('with constant exponent %f', async (exponent) => {
    await checkRule(
      power([exponent], []),
      { x: between([2, 3], 0.5, 2) },
      { others: [{ x: between([1, 3], 0.5, 2) }] },
    );
  });

  it('with a constant exponent per column, zero among them, and a base that is negative or zero', async () => {
    const x = array([2, 4], [-1.5, 0, 0.7, -0.3, 1.1, 0, 2, 0.9]);
    await checkRule(power([2, 0, 1, 3], [4], [2, 4]), { x });
  });

  it('with an exponent of integer type', async () => {
    for (const type of [DataType.INT32, DataType.INT64]) {
      for (const constant of [true, false]) {
        const exponents = [2, 3, 0];
        const model = tinyModel({
          inputs: [info('x', [2, 3]), ...(constant ? [] : [info('e', [3], type)])],
          outputs: [info('y')],
          nodes: [op('Pow x e -> y')],
          initializers: constant ? [makeTensor('e', type, [3], exponents)] : [],
        });
        const x = between([2, 3], -2, -0.5);
        await checkRule(model, constant ? { x } : { x, e: array([3], exponents) }, { wanted: ['x'] });
      }
    }
  });

  it('of two operands, broadcast both ways', async () => {
    for (const [x, e] of [
      [[2, 3], [3]],
      [[3], [2, 1]],
      [[], [2, 2]],
    ] as const) {
      const model = tinyModel({
        inputs: [info('x', x), info('e', e)],
        outputs: [info('y')],
        nodes: [op('Pow x e -> y')],
      });
      await checkRule(model, { x: between(x, 0.5, 2), e: between(e, -2, 2, 3) });
    }
  });

  it('has gradient 0 in a base of 0 whose exponent is 0', () => {
    const model = tinyModel({
      inputs: [info('x', [2]), info('e', [2])],
      outputs: [info('y')],
      nodes: [op('Pow x e -> y')],
    });
    checkGradients(model, { x: array([2], [0, 1.5]), e: array([2], [0, 0]) }, { wanted: ['x'] });
  });

  it('has gradient 0 in an exponent whose base is 0', () => {
    const model = tinyModel({
      inputs: [info('x', [2]), info('e', [2])],
      outputs: [info('y')],
      nodes: [op('Pow x e -> y')],
    });
    const gradients = checkGradients(model, { x: array([2], [0, 1.5]), e: array([2], [2, 2]) }, { wanted: ['e'] });
    expect(gradients.get('e')!.data[0]).toBe(0);
  });
});

describe('choices', () => {
  it.each(['Min', 'Max', 'Mean'])('%s of one to three broadcast operands', async (name) => {
    const shapes = [[2, 3], [3], [2, 1]];
    for (const count of [1, 2, 3]) {
      const names = ['a', 'b', 'c'].slice(0, count);
      const model = tinyModel({
        inputs: names.map((input, i) => info(input, shapes[i]!)),
        outputs: [info('y')],
        nodes: [op(`${name} ${names.join(' ')} -> y`)],
      });
      const given = Object.fromEntries(names.map((input, i) => [input, randomArray(shapes[i]!, 3 + i)]));
      await checkRule(model, given);
      for (const input of names) checkGradients(model, given, { wanted: [input] });
    }
  });

  it.each(['Min', 'Max'])('%s gives the whole gradient to the first of equal operands', (name) => {
    const model = tinyModel({
      inputs: ['a', 'b', 'c'].map((input) => info(input, [1])),
      outputs: [info('y')],
      nodes: [op(`${name} a b c -> y`)],
    });
    const share = (values: number[]): number[] => {
      const given = Object.fromEntries(['a', 'b', 'c'].map((input, i) => [input, array([1], [values[i]!])]));
      const { model: built, names } = gradientModel(model, [given]);
      const found = evaluate(built, given);
      return ['a', 'b', 'c'].map((input) => found.get(names.get(input)!)!.data[0]! + 0);
    };
    const sign = name === 'Max' ? 1 : -1;
    expect(share([2, 2, 2])).toEqual([4, 0, 0]);
    expect(share([sign, 2 * sign, 2 * sign])).toEqual([0, 4 * sign, 0]);
    expect(share([2 * sign, sign, 2 * sign])).toEqual([4 * sign, 0, 0]);
  });

  it('Where broadcasts condition and operands', async () => {
    for (const [c, a, b] of [
      [
        [2, 3],
        [2, 3],
        [2, 3],
      ],
      [[3], [2, 1], []],
      [[2, 1, 1], [3], [1, 2, 1]],
    ] as const) {
      const model = tinyModel({
        inputs: [info('c', c, DataType.BOOL), info('a', a), info('b', b)],
        outputs: [info('y')],
        nodes: [op('Where c a b -> y')],
      });
      const given = {
        c: map(randomArray(c, 5), (v) => (v > 0 ? 1 : 0)),
        a: randomArray(a, 1),
        b: randomArray(b, 2),
      };
      for (const wanted of [['a', 'b'], ['a'], ['b']]) await checkRule(model, given, { wanted });
    }
  });

  it('Clip with any of its bounds', async () => {
    for (const text of ['x low high', 'x low', 'x _ high', 'x']) {
      const bounds = ['low', 'high'].filter((name) => text.includes(name));
      const model = tinyModel({
        inputs: [info('x', ['N', 4]), ...bounds.map((name) => info(name, []))],
        outputs: [info('y')],
        nodes: [op(`Clip ${text} -> y`)],
      });
      const all = { x: randomArray([3, 4], 4), low: array([], [-0.31]), high: array([], [0.53]) };
      const given = Object.fromEntries(Object.entries(all).filter(([name]) => name === 'x' || bounds.includes(name)));
      await checkRule(model, given, { others: [{ ...given, x: randomArray([2, 4], 5) }] });
    }
  });
});

describe('Clip in its very bounds', () => {
  it('gives the gradient to x alone', () => {
    const model = tinyModel({
      inputs: [info('x', [4]), info('low', []), info('high', [])],
      outputs: [info('y')],
      nodes: [op('Clip x low high -> y')],
    });
    const given = { x: array([4], [1, 3, 0, 9]), low: array([], [1]), high: array([], [3]) };
    const { model: built, names } = gradientModel(model, [given]);
    const found = evaluate(built, given);
    expect([...found.get(names.get('x')!)!.data]).toEqual([2, 6, 0, 0]);
    expect([...found.get(names.get('low')!)!.data]).toEqual([2]);
    expect([...found.get(names.get('high')!)!.data]).toEqual([6]);
  });
});

describe('Cast', () => {
  it('passes gradients between float types and stops them at integers', async () => {
    const chain = (to: DataType, inner: string) =>
      tinyModel({
        inputs: [info('x', [2, 3])],
        outputs: [info('y')],
        nodes: [
          op('Cast x -> c', [intAttribute('to', to)]),
          op(`${inner} -> m`),
          op('Cast m -> d', [intAttribute('to', DataType.FLOAT)]),
          op('Mul x x -> s'),
          op('Mul d s -> y'),
        ],
      });
    const model = chain(DataType.DOUBLE, 'Mul c c');
    // The type of an inner value must be declared, as a trained model's is.
    model.graph!.valueInfo.push(info('m', [2, 3], DataType.DOUBLE));
    await checkRule(model, { x: randomArray([2, 3], 1) });
    await checkInEngine(chain(DataType.INT32, 'Identity c'), { x: map(randomArray([2, 3], 1), (v) => 3 * v + 0.01) });
    checkGradients(chain(DataType.INT32, 'Identity c'), { x: map(randomArray([2, 3], 1), (v) => 3 * v + 0.01) });
  });
});

describe('Dropout', () => {
  const spec = (text: string, outputs: string) =>
    tinyModel({
      inputs: [info('x', [4, 5])],
      outputs: [info('y')],
      nodes: [op(`Dropout x ${text} -> ${outputs}`, [intAttribute('seed', 3)])],
      initializers: [
        floats('ratio', [], [0.3]),
        makeTensor('yes', DataType.BOOL, [], [1]),
        makeTensor('no', DataType.BOOL, [], [0]),
      ],
    });

  it('passes gradients for inference', async () => {
    for (const text of ['', 'ratio', 'ratio no']) await checkRule(spec(text, 'y'), { x: randomArray([4, 5], 1) });
  });

  it.each(['ratio yes', '_ yes', 'ratio mode'])('scales by the mask in training, given or added (%s)', (text) => {
    for (const outputs of ['y', 'y mask']) {
      const model = spec(text, outputs);
      if (text.includes('mode')) model.graph!.input.push(info('mode', [], DataType.BOOL));
      for (const mode of text.includes('mode') ? [0, 1] : [1]) {
        const given = { x: randomArray([4, 5], 1), ...(text.includes('mode') ? { mode: array([], [mode]) } : {}) };
        checkGradients(model, given, { wanted: ['x'] });
      }
    }
  });

  it('uses the very mask that ONNX Runtime drew', async () => {
    const { model, names } = gradientModel(spec('ratio yes', 'y'), [{ x: randomArray([4, 5], 1) }]);
    const x = { type: 'float32' as const, dims: [4, 5], data: Float32Array.from({ length: 20 }, (_, i) => i + 1) };
    const found = await run(model, { x });
    const y = Array.from(found['y']!.data, Number);
    expect(y.filter((v) => v === 0).length).toBeGreaterThan(0);
    // The loss is the sum of squares: 2 y mask / (1 - ratio), and y is 0 wherever the mask is.
    const gradient = Array.from(found[names.get('x')!]!.data, Number);
    gradient.forEach((v, i) => expect(v).toBeCloseTo((2 * y[i]!) / 0.7, 3));
  });
});

describe('a chain of functions', () => {
  it('goes back through any composition', () => {
    const names = ['Sin', 'Cos', 'Atan', 'Erf', 'Sinh', 'Neg', 'Identity', 'Asinh'];
    fc.assert(
      fc.property(
        fc.array(fc.constantFrom(...names), { minLength: 1, maxLength: 5 }),
        fc.integer({ min: 1, max: 99 }),
        (chain, seed) => {
          const model = tinyModel({
            inputs: [info('v0', [3])],
            outputs: [info(`v${String(chain.length)}`)],
            nodes: chain.map((name, i) => op(`${name} v${String(i)} -> v${String(i + 1)}`)),
          });
          checkGradients(model, { v0: randomArray([3], seed, 0.5) });
        },
      ),
      { numRuns: 30 },
    );
  });

  it('declares its added outputs as outputs of the node', () => {
    const { model } = gradientModel(
      tinyModel({
        inputs: [info('x', [2])],
        outputs: [info('y')],
        nodes: [op('Dropout x _ yes -> y')],
        initializers: [makeTensor('yes', DataType.BOOL, [], [1])],
      }),
      [{ x: randomArray([2], 1) }],
    );
    const dropout = new Graph(model).nodes.find((node) => node.is('Dropout'))!;
    expect(dropout.outputs.length).toBe(2);
    expect(dropout.outputs[1]!.producer).toBe(dropout);
  });
});
