import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { ModelProto } from 'onnx-buf';
import { intAttribute, intsAttribute } from '../../onnx/attributes.js';
import { checkGradients, randomArray } from '../../testing/check-gradients.js';
import { checkInEngine, checkRule } from '../../testing/check-in-engine.js';
import { gradientModel } from '../../testing/gradient-model.js';
import { info, ints, op, tinyModel } from '../../testing/graph-writing.js';
import { array, map, type NdArray } from '../../testing/reference/array.js';
import { evaluate } from '../../testing/reference/evaluate.js';

const NAMES = [
  ...['ReduceSum', 'ReduceMean', 'ReduceMax', 'ReduceMin', 'ReduceProd'],
  ...['ReduceL1', 'ReduceL2', 'ReduceSumSquare', 'ReduceLogSum', 'ReduceLogSumExp'],
];

interface Spec {
  readonly opset: number;
  /** As the file gives them; undefined leaves them out. */
  readonly axes: readonly number[] | undefined;
  readonly keep: boolean;
  readonly noop?: boolean;
}

function reductionModel(name: string, { opset, axes, keep, noop }: Spec): ModelProto {
  const asInput = axes !== undefined && (opset >= 18 || name === 'ReduceSum');
  const attributes = [intAttribute('keepdims', keep ? 1 : 0)];
  if (noop) attributes.push(intAttribute('noop_with_empty_axes', 1));
  if (axes && !asInput) attributes.push(intsAttribute('axes', axes));
  return tinyModel({
    opset,
    inputs: [info('x', ['N', 3, 4])],
    outputs: [info('y')],
    nodes: [op(`${name} x ${asInput ? 'axes ' : ''}-> y`, attributes)],
    initializers: asInput ? [ints('axes', axes)] : [],
  });
}

/** Away from 0, and above it for the logarithm. */
function sample(name: string, batch: number, seed: number): NdArray {
  const x = randomArray([batch, 3, 4], seed);
  return map(x, (v) => (name === 'ReduceLogSum' ? Math.abs(v) + 0.2 : v + 0.1 * Math.sign(v)));
}

describe.each(NAMES)('%s', (name) => {
  it('over any axes, kept or not, given either way, at any batch size', async () => {
    for (const axes of [[0], [1, -1], [-2], [2, 0], undefined]) {
      for (const keep of [true, false]) {
        const model = reductionModel(name, { opset: keep ? 13 : 18, axes, keep });
        const others = [{ x: sample(name, 4, 2) }];
        await checkRule(model, { x: sample(name, 2, 1) }, { others });
      }
    }
  });

  it('over no axes at all where the model says so', async () => {
    const model = reductionModel(name, { opset: 18, axes: [], keep: true, noop: true });
    await checkRule(model, { x: sample(name, 2, 1) });
  });

  it('over random axes and values', () => {
    fc.assert(
      fc.property(
        fc.uniqueArray(fc.integer({ min: 0, max: 2 }), { minLength: 1 }),
        fc.boolean(),
        fc.constantFrom(13, 18),
        fc.integer({ min: 1, max: 999 }),
        (axes, keep, opset, seed) => {
          checkGradients(reductionModel(name, { opset, axes, keep }), { x: sample(name, 1, seed) });
        },
      ),
      { numRuns: 15 },
    );
  });
});

describe('reductions at their kinks', () => {
  const gradientAt = (name: string, values: number[]): number[] => {
    const x = { x: array([1, 3, 4], [...values, ...values.map((_, i) => i + 5), ...values.map((_, i) => -i - 5)]) };
    const { model, names } = gradientModel(reductionModel(name, { opset: 13, axes: [2], keep: false }), [x]);
    return Array.from(evaluate(model, x).get(names.get('x')!)!.data.slice(0, 4));
  };

  it('equal extremes share the gradient evenly', () => {
    expect(gradientAt('ReduceMax', [3, 1, 3, 2])).toEqual([3, 0, 3, 0]);
    expect(gradientAt('ReduceMin', [2, 1, 1, 3])).toEqual([0, 1, 1, 0]);
  });

  it('a product with zeros has the gradient of the other factors', () => {
    // The loss is the square of the product: 0 where the product is, so that its gradient is seen through a sum instead.
    const model = tinyModel({
      opset: 13,
      inputs: [info('x', [3, 3]), info('w', [3])],
      outputs: [info('y')],
      nodes: [op('ReduceProd x -> p', [intsAttribute('axes', [1]), intAttribute('keepdims', 0)]), op('Mul p w -> y')],
    });
    checkGradients(model, { x: array([3, 3], [0, 2, 3, 0, 0, 5, 1, 2, 3]), w: array([3], [1, 1, 1]) });
  });

  it('the norm of a zero vector has gradient 0', () => {
    expect(gradientAt('ReduceL2', [0, 0, 0, 0])).toEqual([0, 0, 0, 0]);
  });

  it('refuses axes that are computed at run time', () => {
    const model = tinyModel({
      opset: 18,
      inputs: [info('x', [2, 3]), info('axes', [1], 7)],
      outputs: [info('y')],
      nodes: [op('ReduceMax x axes -> y')],
    });
    const given = { x: randomArray([2, 3], 1), axes: array([1], [0]) };
    expect(() => checkGradients(model, given, { wanted: ['x'] })).toThrow(/axes/);
  });

  it('run in ONNX Runtime where elements are equal or zero', async () => {
    for (const name of ['ReduceMax', 'ReduceMin', 'ReduceProd', 'ReduceL2']) {
      const x = array([1, 3, 4], [1, 1, 0, 1, 0, 0, 0, 0, 2, 2, 1, 3]);
      await checkInEngine(reductionModel(name, { opset: 18, axes: [2], keep: true }), { x });
    }
  });
});
