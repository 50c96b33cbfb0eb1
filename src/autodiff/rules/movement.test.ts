import fc from 'fast-check';
import type { AttributeProto, ModelProto, TensorProto } from 'onnx-buf';
import { describe, expect, it } from 'vitest';
import { intAttribute, intsAttribute, stringAttribute } from '../../onnx/attributes.js';
import { DataType } from '../../onnx/dtypes.js';
import { checkGradients, randomArray } from '../../testing/check-gradients.js';
import { checkRule } from '../../testing/check-in-engine.js';
import { checkReference } from '../../testing/check-reference.js';
import { checkVaryingSizes, gradientModel } from '../../testing/gradient-model.js';
import { info, ints, op, tinyModel } from '../../testing/graph-writing.js';
import { array } from '../../testing/reference/array.js';
import { evaluate } from '../../testing/reference/evaluate.js';

interface Spec {
  opset?: number;
  attributes?: AttributeProto[];
  initializers?: TensorProto[];
  outputs?: string[];
}

/** One node with the float input x. */
function modelOf(text: string, dims: readonly (number | string)[], spec: Spec = {}): ModelProto {
  return tinyModel({
    opset: spec.opset ?? 17,
    inputs: [info('x', dims)],
    outputs: (spec.outputs ?? ['y']).map((name) => info(name)),
    nodes: [op(text, spec.attributes)],
    initializers: spec.initializers ?? [],
  });
}

const given = (dims: readonly number[]) => ({ x: randomArray(dims, 1) });

const check = (model: ModelProto, dims: readonly number[]) => checkRule(model, given(dims));

const small = fc.integer({ min: 1, max: 4 });
const shapes = (minLength: number, maxLength: number) => fc.array(small, { minLength, maxLength });

describe('operators that keep the order of the elements', () => {
  it.each<[string, number[], Spec]>([
    ['Reshape x s -> y', [2, 3, 4], { initializers: [ints('s', [0, -1])] }],
    ['Reshape x s -> y', [2, 3, 4], { initializers: [ints('s', [4, 3, 2, 1])] }],
    ['Reshape x s -> y', [1, 1], { initializers: [ints('s', [])] }],
    ['Reshape x s -> y', [2, 3], { initializers: [ints('s', [3, 2])], attributes: [intAttribute('allowzero', 1)] }],
    ['Flatten x -> y', [2, 3, 4], {}],
    ['Flatten x -> y', [2, 3, 4], { attributes: [intAttribute('axis', 0)] }],
    ['Flatten x -> y', [2, 3, 4], { attributes: [intAttribute('axis', -1)] }],
    ['Flatten x -> y', [2, 3], { attributes: [intAttribute('axis', 2)] }],
    ['Squeeze x -> y', [1, 3, 1], {}],
    ['Squeeze x a -> y', [1, 3, 1], { initializers: [ints('a', [-1])] }],
    ['Unsqueeze x a -> y', [2, 3], { initializers: [ints('a', [0, -1])] }],
    ['Unsqueeze x a -> y', [], { initializers: [ints('a', [0])] }],
  ])('%s of [%s]', async (text, dims, spec) => {
    await check(modelOf(text, dims, spec), dims);
  });

  it('keep a varying batch, and two varying sizes', async () => {
    const model = tinyModel({
      inputs: [info('x', ['N', 'M', 6])],
      outputs: [info('y')],
      nodes: [op('Reshape x s -> a'), op('Unsqueeze a one -> b'), op('Flatten b -> y', [intAttribute('axis', 3)])],
      initializers: [ints('s', [0, 0, 2, 3]), ints('one', [1])],
    });
    const samples = [given([2, 3, 6]), given([1, 2, 6])];
    const gradients = checkVaryingSizes(model, samples);
    for (const sample of samples) await checkReference(gradients, sample);
  });
});

describe('Transpose', () => {
  it('goes back by the inverse permutation', async () => {
    await check(modelOf('Transpose x -> y', [2, 3, 4]), [2, 3, 4]);
    const perms = fc.shuffledSubarray([0, 1, 2, 3], { minLength: 4 });
    await fc.assert(
      fc.asyncProperty(shapes(4, 4), perms, async (dims, perm) => {
        await check(modelOf('Transpose x -> y', dims, { attributes: [intsAttribute('perm', perm)] }), dims);
      }),
      { numRuns: 15 },
    );
  });
});

describe('Concat', () => {
  const model = (axis: number, dims: readonly (number | string)[][], text = 'Concat a b c -> y') =>
    tinyModel({
      inputs: ['a', 'b', 'c'].map((name, i) => info(name, dims[i])),
      outputs: [info('y')],
      nodes: [op(text, [intAttribute('axis', axis)])],
    });
  const all = (dims: readonly number[][]) => ({
    a: randomArray(dims[0]!, 1),
    b: randomArray(dims[1]!, 2),
    c: randomArray(dims[2]!, 3),
  });

  it.each([
    [
      1,
      [
        [2, 1, 3],
        [2, 2, 3],
        [2, 4, 3],
      ],
    ],
    [
      -1,
      [
        [2, 1],
        [2, 3],
        [2, 2],
      ],
    ],
    [0, [[1], [2], [3]]],
  ] as [number, number[][]][])('along axis %s', async (axis, dims) => {
    const sample = all(dims);
    checkGradients(model(axis, dims), sample);
    for (const wanted of [['a', 'b', 'c'], ['b'], ['a', 'c']]) {
      checkGradients(model(axis, dims), sample, { wanted });
      await checkReference(gradientModel(model(axis, dims), [sample], { wanted }).model, sample);
    }
    checkGradients(model(axis, dims, 'Concat a b a -> y'), sample, { wanted: ['a'] });
  });

  it('along the batch, whatever it is', async () => {
    const samples = [1, 2].map((n) =>
      all([
        [n, 2],
        [2 * n, 2],
        [1, 2],
      ]),
    );
    const gradients = checkVaryingSizes(
      model(0, [
        ['N', 2],
        ['M', 2],
        [1, 2],
      ]),
      samples,
    );
    for (const sample of samples) await checkReference(gradients, sample);
  });
});

describe('Split', () => {
  it.each<[string, Spec]>([
    ['Split x -> y z w', { opset: 13, attributes: [intAttribute('axis', 1)] }],
    ['Split x s -> y z w', { opset: 13, attributes: [intAttribute('axis', -1)], initializers: [ints('s', [1, 3, 2])] }],
    ['Split x -> y z w', { opset: 18, attributes: [intAttribute('axis', 1), intAttribute('num_outputs', 3)] }],
    ['Split x s -> y z w', { opset: 18, attributes: [intAttribute('axis', 1)], initializers: [ints('s', [4, 1, 1])] }],
  ])('%s', async (text, spec) => {
    for (const outputs of [['y', 'z', 'w'], ['y'], ['z'], ['y', 'w']])
      await check(modelOf(text, [2, 6], { ...spec, outputs }), [2, 6]);
    const samples = [given([2, 6]), given([3, 6])];
    const gradients = checkVaryingSizes(modelOf(text, ['N', 6], { ...spec, outputs: ['z'] }), samples);
    await checkReference(gradients, samples[1]!);
  });

  it('leaves a smaller last part', async () => {
    const attributes = [intAttribute('axis', 0), intAttribute('num_outputs', 3)];
    await check(modelOf('Split x -> y z w', [7, 2], { opset: 18, attributes, outputs: ['y', 'z', 'w'] }), [7, 2]);
  });
});

describe('Slice', () => {
  const slice = (
    dims: readonly (number | string)[],
    starts: number[],
    ends: number[],
    axes?: number[],
    steps?: number[],
  ) =>
    modelOf(`Slice x s e ${axes ? 'a' : ''} ${steps ? 'k' : ''} -> y`, dims, {
      initializers: [
        ...[ints('s', starts), ints('e', ends)],
        ...(axes ? [ints('a', axes)] : []),
        ...(steps ? [ints('k', steps)] : []),
      ],
    });
  const MAX = Number(2n ** 63n - 2n ** 10n);

  it('goes back from any bounds and steps', async () => {
    const bound = fc.oneof(fc.integer({ min: -8, max: 8 }), fc.constantFrom(MAX, -MAX));
    const axis = fc.record({
      size: fc.integer({ min: 1, max: 6 }),
      start: fc.integer({ min: -8, max: 8 }),
      end: bound,
      step: fc.constantFrom(1, 1, 2, 3, -1, -2),
      fromEnd: fc.boolean(),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(axis, { minLength: 1, maxLength: 3 }), async (all) => {
        const dims = all.map(({ size }) => size);
        const axes = all.map(({ fromEnd }, i) => (fromEnd ? i - all.length : i));
        const model = slice(
          dims,
          all.map((a) => a.start),
          all.map((a) => a.end),
          axes,
          all.map((a) => a.step),
        );
        await check(model, dims);
      }),
      { numRuns: 60 },
    );
  });

  it('spreads the elements of a long last axis', async () => {
    const sample = given([2, 300]);
    for (const step of [2, -3, -1]) {
      const model = slice([2, 300], [step < 0 ? -2 : 1], [Math.sign(step) * MAX], [1], [step]);
      const { model: gradients, names } = gradientModel(model, [sample]);
      const first = step < 0 ? 298 : 1;
      const isKept = (column: number): boolean => (column - first) % step === 0 && (column - first) / step >= 0;
      // The loss is the sum of the squared elements.
      expect([...evaluate(gradients, sample).get(names.get('x')!)!.data]).toEqual(
        [...sample.x.data].map((v, i) => (isKept(i % 300) ? 2 * v : 0)),
      );
      await checkReference(gradients, sample);
    }
  });

  it('takes axes and steps as optional', async () => {
    await check(slice([3, 4], [1, 1], [3, 3]), [3, 4]);
    await check(slice([3, 4], [1], [3], [1]), [3, 4]);
    await check(slice([3, 4], [0], [Number.MAX_SAFE_INTEGER]), [3, 4]);
  });

  it('keeps a varying batch, sliced or not', async () => {
    const samples = [given([4, 5, 6]), given([3, 5, 6])];
    for (const model of [
      slice(['N', 5, 6], [1, 0], [MAX, MAX], [1, 2], [2, 2]),
      slice(['N', 5, 6], [0, 1], [MAX, -1], [0, 2]),
      slice(['N', 5, 6], [1], [-1], [0]),
    ]) {
      const gradients = checkVaryingSizes(model, samples);
      for (const sample of samples) await checkReference(gradients, sample);
    }
    expect(() => gradientModel(slice(['N', 5, 6], [-2], [MAX], [0]), samples)).toThrow(/size of the batch/);
  });

  it('refuses bounds computed at run time', () => {
    const model = tinyModel({
      inputs: [info('x', [3]), info('s', [1], DataType.INT64), info('e', [1], DataType.INT64)],
      outputs: [info('y')],
      nodes: [op('Slice x s e -> y')],
    });
    const sample = { ...given([3]), s: array([1], [0]), e: array([1], [2]) };
    expect(() => gradientModel(model, [sample], { wanted: ['x'] })).toThrow(/starts of this Slice/);
  });
});

describe('Pad', () => {
  const pad = (mode: string, dims: readonly (number | string)[], pads: number[], axes?: number[], opset = 19) =>
    modelOf(`Pad x p ${axes ? '_ a' : ''} -> y`, dims, {
      opset,
      attributes: [stringAttribute('mode', mode)],
      initializers: [ints('p', pads), ...(axes ? [ints('a', axes)] : [])],
    });

  it('with a constant, negative pads too', async () => {
    const axis = fc.record({
      size: fc.integer({ min: 3, max: 4 }),
      begin: fc.integer({ min: -1, max: 3 }),
      end: fc.integer({ min: -1, max: 3 }),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(axis, { minLength: 1, maxLength: 3 }), async (all) => {
        const dims = all.map(({ size }) => size);
        await check(pad('constant', dims, [...all.map((a) => a.begin), ...all.map((a) => a.end)]), dims);
      }),
      { numRuns: 25 },
    );
  });

  it.each(['reflect', 'edge', 'wrap'])('%s', async (mode) => {
    const axis = fc
      .integer({ min: 1, max: 4 })
      .chain((size) => fc.record({ size: fc.constant(size), begin: pads(size), end: pads(size) }));
    const pads = (size: number) => fc.integer({ min: 0, max: mode === 'edge' ? 4 : size - 1 });
    await fc.assert(
      fc.asyncProperty(fc.array(axis, { minLength: 1, maxLength: 3 }), async (all) => {
        const dims = all.map(({ size }) => size);
        await check(pad(mode, dims, [...all.map((a) => a.begin), ...all.map((a) => a.end)]), dims);
      }),
      { numRuns: 25 },
    );
  });

  it('wraps and reflects further than the axis is long', () => {
    for (const mode of ['reflect', 'wrap', 'edge'])
      for (const size of [1, 2, 3]) checkGradients(pad(mode, [2, size], [0, 5, 0, 7]), given([2, size]));
  });

  it('of some axes, at opset 13, with a varying batch', async () => {
    await check(pad('reflect', [2, 3, 3], [1, 2, 2, 0], [-1, 1]), [2, 3, 3]);
    await check(pad('constant', [2, 3], [0, 1, 0, 1], undefined, 13), [2, 3]);
    const samples = [given([2, 3]), given([1, 3])];
    for (const mode of ['constant', 'edge', 'reflect', 'wrap']) {
      const gradients = checkVaryingSizes(pad(mode, ['N', 3], [0, 2, 0, 1]), samples);
      for (const sample of samples) await checkReference(gradients, sample);
    }
  });

  it('refuses what has no one meaning', () => {
    expect(() => gradientModel(pad('edge', [3], [-1, 1]), [given([3])])).toThrow(/negative pads/);
    expect(() => gradientModel(pad('edge', ['N'], [1, 1]), [given([3]), given([2])])).toThrow(/varies in size/);
    const model = tinyModel({
      inputs: [info('x', [2]), info('v', [])],
      outputs: [info('y')],
      nodes: [op('Pad x p v -> y')],
      initializers: [ints('p', [1, 1])],
    });
    const sample = { ...given([2]), v: randomArray([], 1) };
    expect(() => gradientModel(model, [sample])).toThrow(/cannot be trained/);
    checkGradients(model, sample, { wanted: ['x'] });
  });
});

describe('Expand, Tile and Trilu', () => {
  it('Expand sums what it repeated', async () => {
    for (const [dims, to] of [
      [
        [3, 1],
        [2, 3, 4],
      ],
      [
        [3, 1],
        [1, 1],
      ],
      [[], [2, 2]],
      [[1], [1]],
    ])
      await check(modelOf('Expand x s -> y', dims!, { initializers: [ints('s', to!)] }), dims!);
    const samples = [given([2, 1]), given([3, 1])];
    const model = modelOf('Expand x s -> y', ['N', 1], { initializers: [ints('s', [1, 3])] });
    await checkReference(checkVaryingSizes(model, samples), samples[0]!);
  });

  it('Tile sums its repetitions', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(small, fc.integer({ min: 1, max: 3 })), { minLength: 1, maxLength: 3 }),
        async (axes) => {
          const dims = axes.map(([size]) => size);
          await check(
            modelOf('Tile x r -> y', dims, {
              initializers: [
                ints(
                  'r',
                  axes.map(([, times]) => times),
                ),
              ],
            }),
            dims,
          );
        },
      ),
      { numRuns: 15 },
    );
    const samples = [given([2, 3]), given([1, 3])];
    for (const repeats of [
      [2, 1],
      [1, 2],
    ]) {
      const model = modelOf('Tile x r -> y', ['N', 3], { initializers: [ints('r', repeats)] });
      await checkReference(checkVaryingSizes(model, samples), samples[0]!);
    }
  });

  it('Trilu passes its triangle', async () => {
    for (const upper of [0, 1])
      for (const k of [undefined, -1, 0, 2]) {
        const initializers = k === undefined ? [] : [ints('k', [k], [])];
        const text = `Trilu x ${k === undefined ? '' : 'k'} -> y`;
        await check(modelOf(text, [2, 3, 4], { attributes: [intAttribute('upper', upper)], initializers }), [2, 3, 4]);
      }
  });
});

describe('reference operators that make values', () => {
  it('agree with ONNX Runtime', async () => {
    const model = tinyModel({
      opset: 19,
      inputs: [info('x', [2, 3, 4])],
      outputs: ['a', 'b', 'c', 'd', 'e', 'f', 'g'].map((name) => info(name)),
      nodes: [
        op('Shape x -> a', [intAttribute('start', -2)]),
        op('Shape x -> b', [intAttribute('start', 1), intAttribute('end', 9)]),
        op('Size x -> c'),
        op('ConstantOfShape a -> d'),
        op('Range from to by -> e'),
        op('EyeLike d -> f', [intAttribute('k', -1)]),
        op('Constant -> g', [intsAttribute('value_ints', [3, 4])]),
      ],
      initializers: [ints('from', [7], []), ints('to', [1], []), ints('by', [-2], [])],
    });
    model.graph!.output = ['a', 'b', 'c', 'd', 'e', 'f', 'g'].map((name) =>
      info(name, undefined, 'df'.includes(name) ? DataType.FLOAT : DataType.INT64),
    );
    await checkReference(model, given([2, 3, 4]));
  });
});
