import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { intAttribute, intsAttribute, stringAttribute } from '../../onnx/attributes.js';
import { checkGradients, randomArray } from '../../testing/check-gradients.js';
import { checkInEngine, checkRule } from '../../testing/check-in-engine.js';
import { checkReference } from '../../testing/check-reference.js';
import { info, op, tinyModel } from '../../testing/graph-writing.js';
import { array, sizeOf, type NdArray } from '../../testing/reference/array.js';

/** Distinct values a good step apart, in random order: no maximum is near a tie. */
function apart(dims: readonly number[], seed: number): NdArray {
  const order = [...randomArray(dims, seed).data.entries()].sort((a, b) => a[1] - b[1]);
  const values = new Float64Array(sizeOf(dims));
  order.forEach(([at], rank) => (values[at] = 0.1 * (rank - values.length / 2) + 0.03));
  return array(dims, values);
}

const axis = fc
  .record({
    kernel: fc.integer({ min: 1, max: 3 }),
    stride: fc.integer({ min: 1, max: 3 }),
    dilation: fc.integer({ min: 1, max: 2 }),
    begin: fc.integer({ min: 0, max: 2 }),
    end: fc.integer({ min: 0, max: 2 }),
    more: fc.integer({ min: 0, max: 3 }),
  })
  // Padding is less than the kernel: every window holds an element of the input.
  .map((a) => ({ ...a, begin: Math.min(a.begin, a.kernel - 1), end: Math.min(a.end, a.kernel - 1) }))
  .map((a) => ({ ...a, size: Math.max(1, (a.kernel - 1) * a.dilation + 1 - a.begin - a.end) + a.more }))
  .filter((a) => a.size > (a.kernel - 1) * (a.dilation - 1));

const pools = fc
  .record({
    axes: fc.constantFrom(1, 2, 2).chain((rank) => fc.array(axis, { minLength: rank, maxLength: rank })),
    padding: fc.constantFrom('explicit', 'explicit', 'SAME_UPPER', 'SAME_LOWER', 'VALID'),
    kind: fc.constantFrom('any', 'blocks', 'dense'),
    ceil: fc.boolean(),
    include: fc.integer({ min: 0, max: 1 }),
    seed: fc.integer({ min: 1, max: 99 }),
  })
  // ONNX Runtime refuses SAME padding of windows that leave gaps.
  .filter(
    (pool) => !pool.padding.startsWith('SAME') || pool.kind !== 'any' || pool.axes.every((a) => a.kernel >= a.stride),
  );
type Pool = typeof pools extends fc.Arbitrary<infer T> ? T : never;

function poolModel(
  opType: 'MaxPool' | 'AveragePool',
  { axes, padding, kind, ceil, include }: Pool,
  opset: number,
): { model: ReturnType<typeof tinyModel>; dims: number[] } {
  const dilated = (opType === 'MaxPool' || opset >= 19) && kind === 'any' && padding === 'explicit';
  const dims = [2, 2, ...axes.map((a) => a.size + (padding === 'VALID' ? 4 : kind === 'blocks' ? 2 : 0))];
  const strides = axes.map((a) => (kind === 'blocks' ? a.kernel : kind === 'dense' ? 1 : a.stride));
  const attributes = [
    intsAttribute(
      'kernel_shape',
      axes.map((a) => a.kernel),
    ),
    intsAttribute('strides', strides),
    ...(dilated
      ? [
          intsAttribute(
            'dilations',
            axes.map((a) => a.dilation),
          ),
        ]
      : []),
    ...(opType === 'AveragePool' ? [intAttribute('count_include_pad', include)] : []),
    ...(padding === 'explicit'
      ? [
          intsAttribute('pads', [...axes.map((a) => a.begin), ...axes.map((a) => a.end)]),
          intAttribute('ceil_mode', ceil ? 1 : 0),
        ]
      : [stringAttribute('auto_pad', padding)]),
  ];
  const nodes = [op(`${opType} x -> y`, attributes)];
  return { model: tinyModel({ opset, inputs: [info('x', dims)], outputs: [info('y')], nodes }), dims };
}

describe.each([
  ['MaxPool', 13],
  ['MaxPool', 17],
  ['AveragePool', 13],
  ['AveragePool', 19],
] as const)('%s of opset %i', (opType, opset) => {
  it('has the reference of ONNX Runtime', async () => {
    await fc.assert(
      fc.asyncProperty(pools, async (pool) => {
        const { model, dims } = poolModel(opType, pool, opset);
        await checkReference(model, { x: apart(dims, pool.seed) });
      }),
      { numRuns: 40 },
    );
  });

  it('goes back through every geometry', () => {
    fc.assert(
      fc.property(pools, (pool) => {
        const { model, dims } = poolModel(opType, pool, opset);
        checkGradients(model, { x: apart(dims, pool.seed) });
      }),
      { numRuns: 25 },
    );
  });

  it('goes back in the engine, whatever the batch', async () => {
    const [kernel, strides] = [intsAttribute('kernel_shape', [3, 3]), intsAttribute('strides', [2, 2])];
    for (const attributes of [
      [intsAttribute('kernel_shape', [2, 2]), intsAttribute('strides', [2, 2])],
      [kernel, strides, intsAttribute('pads', [1, 1, 1, 1])],
      [kernel, intsAttribute('strides', [3, 3]), intAttribute('ceil_mode', 1)],
    ]) {
      const model = tinyModel({
        opset,
        inputs: [info('x', ['N', 3, 8, 8])],
        outputs: [info('y')],
        nodes: [op(`${opType} x -> y`, attributes)],
      });
      await checkInEngine(model, { x: apart([2, 3, 8, 8], 1) }, { others: [{ x: apart([1, 3, 8, 8], 2) }] });
    }
  });
});

describe('three axes', () => {
  it.each(['MaxPool', 'AveragePool'])('%s goes back', async (opType) => {
    for (const [kernel, stride] of [
      [2, 2],
      [2, 1],
    ]) {
      const attributes = [
        intsAttribute('kernel_shape', [kernel!, kernel!, kernel!]),
        intsAttribute('strides', [stride!, stride!, stride!]),
      ];
      const dims = [1, 1, 3, 4, 3];
      const nodes = [op(`${opType} x -> y`, attributes)];
      const model = tinyModel({ inputs: [info('x', dims)], outputs: [info('y')], nodes });
      await checkRule(model, { x: apart(dims, 1) });
    }
  });
});

describe('MaxPool', () => {
  it.each([13, 17])('counts the gradient of a tie once at opset %i', (opset) => {
    for (const [kernel, stride] of [
      [2, 2],
      [3, 2],
      [2, 1],
    ]) {
      const model = tinyModel({
        opset,
        inputs: [info('x', [1, 1, 7, 7])],
        outputs: [info('y')],
        nodes: [
          op('MaxPool x -> y', [
            intsAttribute('kernel_shape', [kernel!, kernel!]),
            intsAttribute('strides', [stride!, stride!]),
          ]),
        ],
      });
      // All elements equal: the outputs' gradients are handed out whole. Differences see another slope on either side.
      const gradients = checkGradients(model, { x: array([1, 1, 7, 7]) }, { tolerance: Infinity });
      const outputs = (Math.floor((7 - kernel!) / stride!) + 1) ** 2;
      const weights = randomLossWeights(outputs);
      expect(gradients.get('x')!.data.reduce((a, b) => a + b)).toBeCloseTo(
        weights.reduce((a, b) => a + b),
        5,
      );
    }
  });

  it('goes back through a graph that reads the indices as well', () => {
    const model = tinyModel({
      inputs: [info('x', [1, 1, 5, 5])],
      outputs: [info('y'), info('i', undefined, 7)],
      nodes: [op('MaxPool x -> y i', [intsAttribute('kernel_shape', [3, 3]), intAttribute('storage_order', 1)])],
    });
    checkGradients(model, { x: apart([1, 1, 5, 5], 3) }, { outputs: ['y'] });
  });
});

/** The weights that checkGradients gives the elements of the first output. */
function randomLossWeights(count: number): number[] {
  return [...randomArray([count], 900).data];
}

describe('global pools', () => {
  it.each(['GlobalAveragePool', 'GlobalMaxPool'])('%s goes back', async (opType) => {
    for (const dims of [
      [2, 3, 4],
      [2, 2, 3, 3],
      [1, 2, 2, 3, 2],
    ]) {
      const model = tinyModel({
        inputs: [info('x', ['N', ...dims.slice(1)])],
        outputs: [info('y')],
        nodes: [op(`${opType} x -> y`)],
      });
      await checkRule(model, { x: apart(dims, 1) }, { others: [{ x: apart([3, ...dims.slice(1)], 2) }] });
    }
  });
});
