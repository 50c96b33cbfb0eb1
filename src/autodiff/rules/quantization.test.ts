import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { ModelProto, NodeProto } from 'onnx-buf';
import { intAttribute, intsAttribute } from '../../onnx/attributes.js';
import { DataType, dataTypeInfo } from '../../onnx/dtypes.js';
import { makeTensor } from '../../onnx/tensor.js';
import { checkInEngine } from '../../testing/check-in-engine.js';
import { checkReference } from '../../testing/check-reference.js';
import { gradientModel } from '../../testing/gradient-model.js';
import { info, ints, op, tinyModel } from '../../testing/graph-writing.js';
import { array, at, build, type NdArray } from '../../testing/reference/array.js';
import { evaluate } from '../../testing/reference/evaluate.js';
import { randomStream } from '../../data/random.js';

interface Spec {
  readonly type: DataType;
  /** Along which the scale varies; undefined for one scale. */
  readonly axis: number | undefined;
  /** Shape [1] instead of [] for one scale. */
  readonly listed: boolean;
  readonly zeroPoint: boolean;
  readonly seed: number;
}

const DIMS = [2, 3, 4];

interface Pair {
  readonly model: ModelProto;
  readonly given: Record<string, NdArray>;
  readonly scales: NdArray;
  readonly zeros: readonly number[];
}

/** A pair of QuantizeLinear and DequantizeLinear, x from below the range to above it and away from every rounding edge. */
function pair(spec: Spec, between: { nodes: NodeProto[]; from: string } = { nodes: [], from: 'q' }): Pair {
  const { type, axis, listed, zeroPoint, seed } = spec;
  const random = randomStream(seed);
  const [low, high] = dataTypeInfo(type).range!.map(Number) as [number, number];
  const count = axis === undefined ? 1 : DIMS[axis]!;
  const dims = axis === undefined && !listed ? [] : [count];
  const scales = array(
    dims,
    Float32Array.from({ length: count }, () => 0.1 + random.float()),
  );
  const zeros = Array.from({ length: count }, () => (zeroPoint ? low + random.int(high - low + 1) : 0));
  const x = build(DIMS, (index) => {
    const k = axis === undefined ? 0 : index[axis]!;
    const reach = low + (high - low) * (1.5 * random.float() - 0.25) - zeros[k]!;
    return scales.data[k]! * (Math.floor(reach) + 0.2 + 0.15 * random.float());
  });
  const zero = zeroPoint ? ' z' : '';
  const attributes = axis === undefined ? [] : [intAttribute('axis', axis)];
  const outputType = zeroPoint || type === DataType.UINT8 ? [] : [intAttribute('output_dtype', type)];
  const model = tinyModel({
    opset: 21,
    irVersion: 10,
    inputs: [info('x', DIMS), info('s', dims)],
    outputs: [info('y')],
    nodes: [
      op(`QuantizeLinear x s${zero} -> q`, [...attributes, ...outputType]),
      ...between.nodes,
      op(`DequantizeLinear ${between.from} s${zero} -> y`, attributes),
    ],
    initializers: zeroPoint ? [makeTensor('z', type, dims, zeros)] : [],
  });
  return { model, given: { x, s: scales }, scales, zeros };
}

/** Gradients of the sum of squares of y. */
function gradientsOf(model: ModelProto, given: Record<string, NdArray>, wanted?: string[]): Record<string, NdArray> {
  const { model: built, names } = gradientModel(model, [given], wanted ? { wanted } : {});
  const values = evaluate(built, given);
  return Object.fromEntries([...names].map(([name, gradient]) => [name, values.get(gradient)!]));
}

/** The formulas of Esser et al., element by element. */
function learnedStep({ type, axis }: Spec, { given, scales, zeros }: Pair): { x: NdArray; s: Float64Array } {
  const [low, high] = dataTypeInfo(type).range!.map(Number) as [number, number];
  const s = new Float64Array(scales.data.length);
  const x = build(DIMS, (index) => {
    const k = axis === undefined ? 0 : index[axis]!;
    const [scale, zero, value] = [scales.data[k]!, zeros[k]!, at(given['x']!, index)];
    const steps = value / scale;
    if (steps + zero < low) {
      s[k]! += 2 * scale * (low - zero) * (low - zero);
      return 0;
    }
    if (steps + zero > high) {
      s[k]! += 2 * scale * (high - zero) * (high - zero);
      return 0;
    }
    const g = 2 * scale * Math.round(steps);
    s[k]! += g * (Math.round(steps) - steps);
    return g;
  });
  return { x, s };
}

function expectClose(actual: ArrayLike<number>, expected: ArrayLike<number>): void {
  expect(actual.length).toBe(expected.length);
  const scale = Math.max(1, ...Array.from(expected, Math.abs));
  for (let i = 0; i < expected.length; i++)
    expect(Math.abs(actual[i]! - expected[i]!), `element ${String(i)}`).toBeLessThanOrEqual(1e-6 * scale);
}

const specs = fc.record<Spec>({
  type: fc.constantFrom(DataType.INT8, DataType.UINT8, DataType.INT4, DataType.UINT4, DataType.INT16),
  axis: fc.constantFrom(undefined, 0, 1, 2),
  listed: fc.boolean(),
  zeroPoint: fc.boolean(),
  seed: fc.integer({ min: 1, max: 9999 }),
});

describe('a pair of QuantizeLinear and DequantizeLinear', () => {
  it('has the straight-through gradient in x and the learned-step gradient in the scale', () => {
    fc.assert(
      fc.property(specs, (spec) => {
        const made = pair(spec);
        const expected = learnedStep(spec, made);
        const { x, s } = gradientsOf(made.model, made.given);
        expectClose(x!.data, expected.x.data);
        expect(s!.dims).toEqual(made.scales.dims);
        expectClose(s!.data, expected.s);
      }),
      { numRuns: 100 },
    );
  });

  it('runs in ONNX Runtime', async () => {
    for (const type of [DataType.INT8, DataType.UINT8, DataType.INT16, DataType.INT4]) {
      for (const axis of [undefined, 0, 1, 2]) {
        const listed = axis === undefined && type === DataType.INT8;
        const { model, given } = pair({ type, axis, listed, zeroPoint: true, seed: 7 });
        await checkReference(model, given);
        // The sine of the 16-bit numbers is lost in float32.
        if (type !== DataType.INT16) await checkInEngine(model, given);
      }
    }
  });

  it('runs at any batch size', async () => {
    for (const axis of [undefined, 1, 2]) {
      const { model, given } = pair({ type: DataType.INT8, axis, listed: false, zeroPoint: false, seed: 9 });
      model.graph!.input[0] = info('x', ['N', ...DIMS.slice(1)]);
      const x = array([1, ...DIMS.slice(1)], given['x']!.data.slice(0, 12));
      await checkInEngine(model, given, { others: [{ ...given, x }] });
    }
  });

  it('builds only what is wanted', () => {
    const made = pair({ type: DataType.INT8, axis: 1, listed: false, zeroPoint: true, seed: 3 });
    const all = gradientsOf(made.model, made.given);
    for (const name of ['x', 's'])
      expectClose(gradientsOf(made.model, made.given, [name])[name]!.data, all[name]!.data);
  });

  it('counts the ends of the range as inside, and takes a vector with a scale per element', () => {
    const model = tinyModel({
      inputs: [info('x', [4]), info('s', [4])],
      outputs: [info('y')],
      nodes: [
        op('QuantizeLinear x s z -> q', [intAttribute('axis', 0)]),
        op('DequantizeLinear q s z -> y', [intAttribute('axis', 0)]),
      ],
      initializers: [makeTensor('z', DataType.INT8, [4], [0, 3, 0, 0])],
    });
    const s = array([4], [0.5, 0.25, 0.5, 0.5]);
    const found = gradientsOf(model, { x: array([4], [0.5 * 127, 0.25 * -131, 63.6, 3.1]), s });
    expectClose(found['x']!.data, [127, -65.5, 0, 6]);
    expectClose(found['s']!.data, [0, 0, 127 * 127, 6 * (6 - 6.2)]);
  });

  it('goes back through operators that move the integers', () => {
    const spec = { type: DataType.INT8, axis: undefined, listed: false, zeroPoint: true, seed: 5 };
    const nodes = [op('Transpose q -> t', [intsAttribute('perm', [2, 0, 1])]), op('Reshape t flat -> r')];
    const made = pair(spec, { nodes, from: 'r' });
    made.model.graph!.initializer.push(ints('flat', [4, 6]));
    const direct = pair(spec);
    const [moved, plain] = [gradientsOf(made.model, made.given), gradientsOf(direct.model, direct.given)];
    expectClose(moved['x']!.data, plain['x']!.data);
    expectClose(moved['s']!.data, plain['s']!.data);
  });
});

describe('DequantizeLinear alone', () => {
  it('has a true gradient in the scale of stored integers', () => {
    const model = tinyModel({
      inputs: [info('s', [3])],
      outputs: [info('y')],
      nodes: [op('DequantizeLinear q s z -> y', [intAttribute('axis', 0)])],
      initializers: [
        makeTensor('q', DataType.INT8, [3, 2], [1, -5, 7, 100, -128, 127]),
        makeTensor('z', DataType.INT8, [3], [0, 3, -4]),
      ],
    });
    const { s } = gradientsOf(model, { s: array([3], [0.5, 0.25, 2]) });
    expectClose(s!.data, [2 * 0.5 * (1 + 25), 2 * 0.25 * (16 + 97 ** 2), 2 * 2 * (124 ** 2 + 131 ** 2)]);
  });

  it('goes back to an x that is dequantized with equal stored scales', () => {
    const model = tinyModel({
      inputs: [info('x', [3])],
      outputs: [info('y')],
      nodes: [op('QuantizeLinear x a -> q'), op('DequantizeLinear q b -> y')],
      initializers: ['a', 'b'].map((name) => makeTensor(name, DataType.FLOAT, [], [0.5])),
    });
    expectClose(gradientsOf(model, { x: array([3], [-1, 1.1, 200]) })['x']!.data, [0, 2, 0]);
  });
});

describe('what cannot be trained through is refused', () => {
  const refused = (nodes: NodeProto[]): (() => unknown) => {
    const model = tinyModel({
      opset: 21,
      irVersion: 10,
      inputs: [info('x', [4, 4])],
      outputs: [info('y')],
      nodes,
      initializers: [
        makeTensor('s', DataType.FLOAT, [], [0.5]),
        makeTensor('other', DataType.FLOAT, [], [0.25]),
        makeTensor('blocks', DataType.FLOAT, [2, 4], new Float32Array(8).fill(0.5)),
      ],
    });
    return () => gradientsOf(model, { x: build([4, 4], ([i, j]) => i! - j!) });
  };

  it('another scale on the way back', () => {
    expect(refused([op('QuantizeLinear x s -> q'), op('DequantizeLinear q other -> y')])).toThrow(/another scale/);
  });

  it('a trained scale that is stored twice', () => {
    const model = tinyModel({
      inputs: [info('x', [3])],
      outputs: [info('y')],
      nodes: [op('QuantizeLinear x a -> q'), op('DequantizeLinear q b -> y')],
      initializers: ['a', 'b'].map((name) => makeTensor(name, DataType.FLOAT, [], [0.5])),
    });
    const x = array([3], [-1, 1.1, 200]);
    for (const name of ['a', 'b']) expect(() => gradientsOf(model, { x }, ['x', name])).toThrow(/scale/);
  });

  it('blocks', () => {
    const block = [intAttribute('block_size', 2), intAttribute('axis', 0)];
    const nodes = [op('QuantizeLinear x blocks -> q', block), op('DequantizeLinear q blocks -> y', block)];
    expect(refused(nodes)).toThrow(/Block-wise/);
  });

  it('integers that are used as numbers', () => {
    const float = [intAttribute('to', DataType.FLOAT)];
    const nodes = [
      op('QuantizeLinear x s -> q'),
      op('Cast q -> c', float),
      op('DequantizeLinear q s -> d'),
      op('Add c d -> y'),
    ];
    expect(refused(nodes)).toThrow(/another scale/);
  });
});
