import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { floatAttribute, intAttribute, intsAttribute, stringAttribute } from '../../onnx/attributes.js';
import { DataType } from '../../onnx/dtypes.js';
import { makeTensor } from '../../onnx/tensor.js';
import { checkGradients, randomArray } from '../../testing/check-gradients.js';
import { checkInEngine, checkRule } from '../../testing/check-in-engine.js';
import { checkReference } from '../../testing/check-reference.js';
import { info, ints, op, tinyModel } from '../../testing/graph-writing.js';

const COORDINATES = ['half_pixel', 'pytorch_half_pixel', 'align_corners', 'asymmetric'];

const resizes = fc.record({
  mode: fc.constantFrom('nearest', 'linear', 'cubic'),
  coordinates: fc.constantFrom(...COORDINATES),
  rounding: fc.constantFrom('round_prefer_floor', 'round_prefer_ceil', 'floor', 'ceil'),
  sizes: fc.tuple(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 1, max: 5 })),
  lengths: fc.tuple(fc.integer({ min: 1, max: 8 }), fc.integer({ min: 1, max: 8 })),
  byScales: fc.boolean(),
  exclude: fc.integer({ min: 0, max: 1 }),
  seed: fc.integer({ min: 1, max: 99 }),
});
type Resizing = typeof resizes extends fc.Arbitrary<infer T> ? T : never;

function resizeModel(resizing: Resizing, opset = 17): ReturnType<typeof tinyModel> {
  const { mode, coordinates, rounding, sizes, lengths, byScales, exclude } = resizing;
  const scales = lengths.map((length, i) => length / sizes[i]!);
  const attributes = [
    stringAttribute('mode', mode),
    stringAttribute('coordinate_transformation_mode', coordinates),
    stringAttribute('nearest_mode', rounding),
    ...(mode === 'cubic' ? [intAttribute('exclude_outside', exclude), floatAttribute('cubic_coeff_a', -0.5)] : []),
  ];
  return tinyModel({
    opset,
    inputs: [info('x', [1, 2, ...sizes])],
    outputs: [info('y')],
    nodes: [op(byScales ? 'Resize x _ scales -> y' : 'Resize x _ _ sizes -> y', attributes)],
    initializers: byScales
      ? [makeTensor('scales', DataType.FLOAT, [4], Float32Array.from([1, 1, ...scales]))]
      : [ints('sizes', [1, 2, ...lengths])],
  });
}

describe('Resize', () => {
  it('has the reference of ONNX Runtime', async () => {
    await fc.assert(
      fc.asyncProperty(resizes, async (resizing) => {
        await checkReference(resizeModel(resizing), { x: randomArray([1, 2, ...resizing.sizes], resizing.seed) });
      }),
      { numRuns: 150 },
    );
  });

  it('goes back through every mode', () => {
    fc.assert(
      fc.property(resizes, (resizing) => {
        checkGradients(resizeModel(resizing), { x: randomArray([1, 2, ...resizing.sizes], resizing.seed) });
      }),
      { numRuns: 60 },
    );
  });

  it.each([
    [13, 'nearest', [1, 1, 2, 2]],
    [17, 'nearest', [1, 1, 3, 1]],
    [17, 'linear', [1, 1, 2, 2]],
    [19, 'linear', [1, 1, 0.5, 1.5]],
  ] as const)('goes back in the engine, whatever the batch (opset %i, %s, %j)', async (opset, mode, scales) => {
    const model = tinyModel({
      opset,
      inputs: [info('x', ['N', 2, 4, 4])],
      outputs: [info('y')],
      nodes: [op('Resize x _ scales -> y', [stringAttribute('mode', mode)])],
      initializers: [makeTensor('scales', DataType.FLOAT, [4], Float32Array.from(scales))],
    });
    await checkRule(model, { x: randomArray([2, 2, 4, 4], 1) }, { others: [{ x: randomArray([1, 2, 4, 4], 2) }] });
  });

  it('goes back along one and three axes, and those that `axes` names', async () => {
    for (const [dims, scales, axes] of [
      [[2, 2, 4], [1, 1, 2], undefined],
      [[1, 2, 3, 2, 2], [1, 1, 2, 1.5, 2], undefined],
      [
        [1, 2, 3, 3],
        [2, 2],
        [2, -1],
      ],
    ] as const) {
      const model = tinyModel({
        opset: axes ? 18 : 17,
        inputs: [info('x', dims)],
        outputs: [info('y')],
        nodes: [
          op('Resize x _ scales -> y', [
            stringAttribute('mode', 'nearest'),
            stringAttribute('coordinate_transformation_mode', 'asymmetric'),
            ...(axes ? [intsAttribute('axes', axes)] : []),
          ]),
        ],
        initializers: [makeTensor('scales', DataType.FLOAT, [scales.length], Float32Array.from(scales))],
      });
      await checkRule(model, { x: randomArray(dims, 1) });
    }
  });

  it.each([
    ['antialias', intAttribute('antialias', 1)],
    ['crops', stringAttribute('coordinate_transformation_mode', 'tf_crop_and_resize')],
    ['aspect ratio', stringAttribute('keep_aspect_ratio_policy', 'not_larger')],
  ])('refuses %s', (_, attribute) => {
    const model = tinyModel({
      opset: 19,
      inputs: [info('x', ['N', 1, 4, 4])],
      outputs: [info('y')],
      nodes: [op('Resize x _ _ sizes -> y', [attribute, stringAttribute('mode', 'linear')], 'odd')],
      initializers: [ints('sizes', [1, 1, 2, 2])],
    });
    // The value of y is given, since the reference cannot compute it.
    const given = { x: randomArray([1, 1, 4, 4], 1), y: randomArray([1, 1, 2, 2], 2) };
    const refusal: unknown = expect.objectContaining({ code: 'unsupported', node: 'odd' });
    expect(() => checkGradients(model, given, { wanted: ['x'] })).toThrow(refusal as Error);
  });
});

describe('depth and space', () => {
  it.each([
    ['DepthToSpace', [2, 8, 2, 3], [stringAttribute('mode', 'DCR')]],
    ['DepthToSpace', [2, 8, 2, 3], [stringAttribute('mode', 'CRD')]],
    ['SpaceToDepth', [2, 2, 4, 2], []],
  ] as const)('%s %j goes back', async (opType, dims, attributes) => {
    const model = tinyModel({
      inputs: [info('x', ['N', ...dims.slice(1)])],
      outputs: [info('y')],
      nodes: [op(`${opType} x -> y`, [intAttribute('blocksize', 2), ...attributes])],
    });
    const given = { x: randomArray(dims, 1) };
    await checkRule(model, given, { others: [{ x: randomArray([3, ...dims.slice(1)], 2) }] });
    await checkInEngine(model, given);
  });
});
