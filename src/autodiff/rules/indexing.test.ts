import fc from 'fast-check';
import type { AttributeProto, ModelProto, TensorProto } from 'onnx-buf';
import { describe, expect, it } from 'vitest';
import { intAttribute, stringAttribute } from '../../onnx/attributes.js';
import { DataType } from '../../onnx/dtypes.js';
import { checkGradients, randomArray } from '../../testing/check-gradients.js';
import { checkRule } from '../../testing/check-in-engine.js';
import { checkReference } from '../../testing/check-reference.js';
import { checkVaryingSizes, gradientModel } from '../../testing/gradient-model.js';
import { info, ints, op, opsOf, tinyModel } from '../../testing/graph-writing.js';
import { array, sizeOf, type NdArray } from '../../testing/reference/array.js';

interface Operand {
  readonly dims: readonly (number | string)[];
  readonly type?: DataType;
}

interface Spec {
  readonly opset?: number;
  readonly attributes?: AttributeProto[];
  readonly initializers?: TensorProto[];
  readonly outputs?: readonly string[];
}

const INDEX = DataType.INT64;

function modelOf(text: string, inputs: Readonly<Record<string, Operand>>, spec: Spec = {}): ModelProto {
  return tinyModel({
    opset: spec.opset ?? 18,
    inputs: Object.entries(inputs).map(([name, { dims, type }]) => info(name, dims, type ?? DataType.FLOAT)),
    outputs: (spec.outputs ?? ['y']).map((name) =>
      info(name, undefined, name.startsWith('i') ? INDEX : DataType.FLOAT),
    ),
    nodes: [op(text, spec.attributes)],
    initializers: spec.initializers ?? [],
  });
}

const check = (
  model: ModelProto,
  given: Readonly<Record<string, NdArray>>,
  wanted: readonly string[] = ['x'],
  outputs?: readonly string[],
): Promise<void> => checkRule(model, given, { wanted, ...(outputs && { outputs }) });

/** Arbitrary indices into axes of these sizes, from either end. */
const indexInto = (size: number) => fc.integer({ min: -size, max: size - 1 });
const small = fc.integer({ min: 1, max: 3 });
const shapeOf = (minLength: number, maxLength: number) => fc.array(small, { minLength, maxLength });

/** As many indices as the dims ask for, into an axis of `size`. */
const indicesOf = (dims: readonly number[], size: number) =>
  fc.array(indexInto(size), { minLength: sizeOf(dims), maxLength: sizeOf(dims) }).map((values) => array(dims, values));

describe('Gather', () => {
  const axis = (value: number) => [intAttribute('axis', value)];
  const cases = fc
    .record({ dims: shapeOf(1, 3), indexDims: shapeOf(0, 2), opset: fc.constantFrom(13, 18), at: fc.nat(2) })
    .chain(({ dims, indexDims, opset, at }) => {
      const along = at % dims.length;
      return fc.record({
        ...{ dims: fc.constant(dims), opset: fc.constant(opset), along: fc.constantFrom(along, along - dims.length) },
        indices: indicesOf(indexDims, dims[along]!),
      });
    });

  it('adds up repeated indices along any axis', async () => {
    await fc.assert(
      fc.asyncProperty(cases, async ({ dims, opset, along, indices }) => {
        const inputs = { x: { dims }, i: { dims: indices.dims, type: INDEX } };
        const model = modelOf('Gather x i -> y', inputs, { opset, attributes: axis(along) });
        await check(model, { x: randomArray(dims, 1), i: indices });
      }),
      { numRuns: 40 },
    );
  });

  it('takes constant indices', async () => {
    await fc.assert(
      fc.asyncProperty(cases, async ({ dims, opset, along, indices }) => {
        const initializers = [ints('i', [...indices.data], indices.dims)];
        const model = modelOf('Gather x i -> y', { x: { dims } }, { opset, attributes: axis(along), initializers });
        await check(model, { x: randomArray(dims, 1) });
      }),
      { numRuns: 40 },
    );
  });

  it.each([
    [[2, 3], 'Pad'],
    [[-1], 'Pad'],
    [[3, 0, 2, -3], 'Gather'],
  ] as [number[], string][])('goes back from constant %s by %s', async (indices, expected) => {
    const initializers = [ints('i', indices)];
    const model = modelOf('Gather x i -> y', { x: { dims: [2, 4, 3] } }, { attributes: axis(1), initializers });
    const given = { x: randomArray([2, 4, 3], 1) };
    await check(model, given);
    const ops = opsOf(gradientModel(model, [given]).model);
    expect(ops.filter((name) => name === expected).length).toBe(expected === 'Gather' ? 2 : 1);
    expect(ops).not.toContain('OneHot');
  });

  it('adds rows of long tables by ScatterElements, and by one-hot products where nothing else adds', async () => {
    const indices = array([2, 3], [256, -1, 5, 5, 0, 5]);
    for (const [opset, dims, along, expected] of [
      [13, [257, 2], 0, 'OneHot'],
      [16, [257, 2], 0, 'ScatterElements'],
      [18, [257], 0, 'ScatterElements'],
      [18, [1, 257, 1, 2], 1, 'ScatterElements'],
    ] as const) {
      const inputs = { x: { dims }, i: { dims: [2, 3], type: INDEX } };
      const model = modelOf('Gather x i -> y', inputs, { opset, attributes: axis(along) });
      const given = { x: randomArray(dims, 1), i: indices };
      const gradients = gradientModel(model, [given], { wanted: ['x'] }).model;
      expect(opsOf(gradients)).toContain(expected);
      await checkReference(gradients, given);
      if (opset === 18) checkGradients(model, given, { wanted: ['x'] });
    }
  });

  it('keeps a varying batch of tokens and of tables', async () => {
    const samples = [2, 3].map((n) => ({
      x: randomArray([7, 2], 1),
      i: array(
        [n, 3],
        Array.from({ length: n * 3 }, (_, k) => (k * 5) % 7),
      ),
    }));
    const table = modelOf('Gather x i -> y', { x: { dims: [7, 2] }, i: { dims: ['N', 3], type: INDEX } });
    const tables = modelOf(
      'Gather x i -> y',
      { x: { dims: ['N', 300, 2] }, i: { dims: [2, 2], type: INDEX } },
      { attributes: axis(1) },
    );
    const batches = [2, 1].map((n) => ({ x: randomArray([n, 300, 2], 1), i: array([2, 2], [1, 299, -1, 1]) }));
    for (const [model, given] of [
      [table, samples],
      [tables, batches],
    ] as const) {
      const gradients = checkVaryingSizes(model, given, { wanted: ['x'] });
      for (const sample of given) await checkReference(gradients, sample);
    }
    const token = modelOf(
      'Gather x i -> y',
      { x: { dims: ['N', 5, 2] } },
      { attributes: axis(1), initializers: [ints('i', [0], [])] },
    );
    const sequences = [2, 1].map((n) => ({ x: randomArray([n, 5, 2], 1) }));
    await checkReference(checkVaryingSizes(token, sequences), sequences[0]!);
    const sample = modelOf('Gather x i -> y', { x: { dims: ['N', 5] } }, { initializers: [ints('i', [-1, 0])] });
    const rows = [2, 4].map((n) => ({ x: randomArray([n, 5], 1) }));
    await checkReference(checkVaryingSizes(sample, rows), rows[0]!);
  });
});

describe('GatherElements', () => {
  const cases = shapeOf(1, 3).chain((dims) =>
    fc.nat(dims.length - 1).chain((axis) =>
      fc
        .tuple(
          fc.tuple(...dims.map((size, i) => (i === axis ? small : fc.integer({ min: 1, max: size })))),
          fc.constantFrom(axis, axis - dims.length),
        )
        .chain(([indexDims, given]) =>
          fc.record({
            dims: fc.constant(dims),
            axis: fc.constant(given),
            opset: fc.constantFrom(13, 18),
            indices: indicesOf(indexDims, dims[axis]!),
          }),
        ),
    ),
  );

  it('adds up repeated indices along any axis', async () => {
    await fc.assert(
      fc.asyncProperty(cases, async ({ dims, axis, opset, indices }) => {
        const inputs = { x: { dims }, i: { dims: indices.dims, type: INDEX } };
        const model = modelOf('GatherElements x i -> y', inputs, { opset, attributes: [intAttribute('axis', axis)] });
        await check(model, { x: randomArray(dims, 1), i: indices });
      }),
      { numRuns: 40 },
    );
  });

  it('keeps a varying batch, of which the indices may cover a part', async () => {
    for (const opset of [13, 18]) {
      const inputs = { x: { dims: ['N', 3] }, i: { dims: ['M', 2], type: INDEX } };
      const model = modelOf('GatherElements x i -> y', inputs, { opset, attributes: [intAttribute('axis', 1)] });
      const sample = (n: number, m: number) => ({
        x: randomArray([n, 3], 1),
        i: array(
          [m, 2],
          Array.from({ length: 2 * m }, (_, k) => k % 3),
        ),
      });
      for (const samples of [
        [sample(2, 2), sample(3, 3)],
        [sample(3, 2), sample(3, 1)],
        [sample(3, 2), sample(2, 2)],
        [sample(3, 1), sample(4, 3)],
      ]) {
        const gradients = checkVaryingSizes(model, samples, { wanted: ['x'] });
        for (const given of samples) await checkReference(gradients, given);
      }
    }
  });
});

describe('GatherND', () => {
  const cases = fc
    .record({
      dims: shapeOf(1, 4),
      lead: shapeOf(0, 2),
      cut: fc.tuple(fc.nat(3), fc.nat(3)),
      opset: fc.constantFrom(13, 18),
    })
    .chain(({ dims, lead, cut, opset }) => {
      const depth = 1 + (cut[0] % dims.length);
      const batch = cut[1] % (dims.length - depth + 1);
      const tuples = [...dims.slice(0, batch), ...lead];
      const tuple = fc.tuple(...dims.slice(batch, batch + depth).map(indexInto));
      return fc
        .array(tuple, { minLength: sizeOf(tuples), maxLength: sizeOf(tuples) })
        .map((all) => ({ dims, batch, opset, indices: array([...tuples, depth], all.flat()) }));
    });

  it('adds up repeated addresses behind any number of batch axes', async () => {
    await fc.assert(
      fc.asyncProperty(cases, async ({ dims, batch, opset, indices }) => {
        const attributes = [intAttribute('batch_dims', batch)];
        const inputs = { x: { dims }, i: { dims: indices.dims, type: INDEX } };
        await check(modelOf('GatherND x i -> y', inputs, { opset, attributes }), {
          x: randomArray(dims, 1),
          i: indices,
        });
      }),
      { numRuns: 60 },
    );
  });

  it('keeps a varying batch, of long axes too', async () => {
    for (const [size, batch] of [
      [4, 1],
      [300, 1],
      [300, 0],
    ] as const) {
      const samples = [2, 3].map((n) => ({
        x: randomArray(batch ? [n, size, 2] : [size, 2], 1),
        i: array(
          [n, 2, 1],
          Array.from({ length: 2 * n }, (_, k) => k % 3),
        ),
      }));
      const model = modelOf(
        'GatherND x i -> y',
        { x: { dims: batch ? ['N', size, 2] : [size, 2] }, i: { dims: ['N', 2, 1], type: INDEX } },
        { attributes: [intAttribute('batch_dims', batch)] },
      );
      const gradients = checkVaryingSizes(model, samples, { wanted: ['x'] });
      for (const sample of samples) await checkReference(gradients, sample);
    }
  });
});

describe('ScatterElements and ScatterND', () => {
  it.each(['none', 'add'])('ScatterElements with reduction %s', async (reduction) => {
    for (const [axis, dims] of [
      [0, [3, 2]],
      [-1, [3, 4]],
      [1, [2, 3, 2]],
    ] as const) {
      const indexDims: number[] = [...dims].with(axis, 2);
      const along = dims.at(axis)!;
      // Distinct along the axis, which `none` asks for.
      const outer = sizeOf(dims.slice((axis + dims.length) % dims.length).slice(1));
      const indices = array(
        indexDims,
        Array.from({ length: sizeOf(indexDims) }, (_, k) => (Math.floor(k / outer) % 2 ? along - 1 : -along)),
      );
      const attributes = [intAttribute('axis', axis), stringAttribute('reduction', reduction)];
      const inputs = { x: { dims }, i: { dims: indexDims, type: INDEX }, u: { dims: indexDims } };
      const model = modelOf('ScatterElements x i u -> y', inputs, { attributes });
      const given = { x: randomArray(dims, 1), i: indices, u: randomArray(indexDims, 2) };
      for (const wanted of [['x', 'u'], ['x'], ['u']]) await check(model, given, wanted);
    }
  });

  it.each(['none', 'add'])('ScatterND with reduction %s', async (reduction) => {
    for (const [dims, indices, updates] of [
      [[4, 2], array([2, 1], [3, 0]), [2, 2]],
      [[4, 2], array([2, 2], [3, 0, -1, -1]), [2]],
      [[3], array([1, 2, 1], [2, 1]), [1, 2]],
    ] as const) {
      const attributes = [stringAttribute('reduction', reduction)];
      const inputs = { x: { dims }, i: { dims: indices.dims, type: INDEX }, u: { dims: updates } };
      const model = modelOf('ScatterND x i u -> y', inputs, { attributes });
      const given = { x: randomArray(dims, 1), i: indices, u: randomArray(updates, 2) };
      for (const wanted of [['x', 'u'], ['x'], ['u']]) await check(model, given, wanted);
    }
  });

  it('add repeated updates', () => {
    const attributes = [stringAttribute('reduction', 'add')];
    const inputs = { x: { dims: [3] }, i: { dims: [4], type: INDEX }, u: { dims: [4] } };
    const given = { x: randomArray([3], 1), i: array([4], [1, 1, -2, 0]), u: randomArray([4], 2) };
    checkGradients(modelOf('ScatterElements x i u -> y', inputs, { attributes }), given, { wanted: ['x', 'u'] });
  });

  it('refuse other reductions', () => {
    const attributes = [stringAttribute('reduction', 'max')];
    const inputs = { x: { dims: [3] }, i: { dims: [1], type: INDEX }, u: { dims: [1] } };
    const given = { x: randomArray([3], 1), i: array([1], [1]), u: randomArray([1], 2) };
    const model = modelOf('ScatterElements x i u -> y', inputs, { attributes });
    expect(() => gradientModel(model, [given], { wanted: ['x'] })).toThrow(/reduction 'max'/);
  });
});

describe('TopK', () => {
  it('sends the gradient of a value to where it was found', async () => {
    for (const [axis, largest] of [
      [-1, 1],
      [0, 0],
      [1, 1],
    ] as const) {
      const attributes = [intAttribute('axis', axis), intAttribute('largest', largest)];
      const spec = { attributes, outputs: ['y', 'i'], initializers: [ints('k', [2])] };
      // Distinct and far from each other: no step of the differences changes the order.
      const x = array(
        [3, 4, 2],
        Array.from({ length: 24 }, (_, i) => ((i * 7) % 24) / 4),
      );
      await check(modelOf('TopK x k -> y i', { x: { dims: [3, 4, 2] } }, spec), { x }, ['x'], ['y']);
    }
  });
});

describe('CumSum', () => {
  it('goes back from the other end', async () => {
    for (const exclusive of [0, 1])
      for (const reverse of [0, 1])
        for (const axis of [0, 1, -1]) {
          const attributes = [intAttribute('exclusive', exclusive), intAttribute('reverse', reverse)];
          const initializers = [ints('a', [axis], [])];
          const model = modelOf('CumSum x a -> y', { x: { dims: [3, 2, 4] } }, { attributes, initializers });
          await check(model, { x: randomArray([3, 2, 4], 1) });
        }
  });
});

describe('reference operators that find indices', () => {
  it('agree with ONNX Runtime', async () => {
    const x = array(
      [2, 3, 4],
      [...randomArray([2, 3, 4], 3).data].map((v) => Math.round(2 * v)),
    );
    for (const name of ['ArgMax', 'ArgMin'])
      for (const axis of [0, -1])
        for (const keep of [0, 1])
          for (const last of [0, 1]) {
            const attributes = [
              ...[intAttribute('axis', axis), intAttribute('keepdims', keep)],
              intAttribute('select_last_index', last),
            ];
            const model = modelOf(`${name} x -> i`, { x: { dims: [2, 3, 4] } }, { attributes, outputs: ['i'] });
            await checkReference(model, { x });
          }
    for (const axis of [0, 1, -1]) {
      const inputs = { n: { dims: [2, 2], type: INDEX }, v: { dims: [2] } };
      const attributes = [intAttribute('axis', axis)];
      const model = modelOf('OneHot n d v -> y', inputs, { attributes, initializers: [ints('d', [3])] });
      await checkReference(model, { n: array([2, 2], [0, 2, -1, 7]), v: array([2], [0.5, 2]) });
    }
    for (const [reduction, opset] of [
      ['mul', 18],
      ['max', 18],
      ['min', 18],
    ] as const) {
      const attributes = [stringAttribute('reduction', reduction)];
      const inputs = { x: { dims: [3] }, i: { dims: [3], type: INDEX }, u: { dims: [3] } };
      const model = modelOf('ScatterElements x i u -> y', inputs, { opset, attributes });
      await checkReference(model, { x: randomArray([3], 1), i: array([3], [1, 1, 0]), u: randomArray([3], 2) });
    }
  });
});
