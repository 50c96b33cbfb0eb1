import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { AttributeProto, ModelProto } from 'onnx-buf';
import { floatAttribute, intAttribute, intsAttribute } from '../../onnx/attributes.js';
import { checkGradients, randomArray } from '../../testing/check-gradients.js';
import { checkRule } from '../../testing/check-in-engine.js';
import { checkReference } from '../../testing/check-reference.js';
import { info, op, tinyModel } from '../../testing/graph-writing.js';
import { map, type NdArray } from '../../testing/reference/array.js';

type Given = Record<string, NdArray>;

const positive = (dims: readonly number[], seed: number): NdArray =>
  map(randomArray(dims, seed), (v) => Math.abs(v) + 0.5);

function model(opset: number, text: string, given: Given, attributes: AttributeProto[] = []): ModelProto {
  const outputs = text.split('->')[1]!.trim().split(' ');
  return tinyModel({
    opset,
    irVersion: opset > 20 ? 10 : 8,
    inputs: Object.entries(given).map(([name, { dims }]) => info(name, name === 'x' ? ['N', ...dims.slice(1)] : dims)),
    outputs: outputs.map((output) => info(output)),
    nodes: [op(text, attributes)],
  });
}

/** The same parameters with another batch. */
const withBatch = (given: Given, batch: number): Given => ({
  ...given,
  x: randomArray([batch, ...given['x']!.dims.slice(1)], 77),
});

const epsilon = [floatAttribute('epsilon', 1e-3)];

describe('BatchNormalization', () => {
  const given = (dims: readonly number[]): Given => ({
    x: randomArray(dims, 1),
    scale: randomArray([dims[1]!], 2),
    bias: randomArray([dims[1]!], 3),
    mean: randomArray([dims[1]!], 4),
    variance: positive([dims[1]!], 5),
  });
  const text = 'BatchNormalization x scale bias mean variance -> y';
  const shapes = [
    [3, 2],
    [2, 3, 4],
    [2, 3, 2, 2],
    [2, 2, 2, 1, 3],
  ];

  it.each(shapes.map((dims) => [dims]))('with frozen statistics, which may be trained too, on [%s]', async (dims) => {
    const values = given(dims);
    for (const opset of [13, 14, 15]) {
      const others = [withBatch(values, 4)];
      await checkRule(model(opset, text, values, epsilon), values, { others });
    }
    for (const name of Object.keys(values)) checkGradients(model(15, text, values), values, { wanted: [name] });
  });

  it.each(shapes.map((dims) => [dims]))('with statistics of the batch, on [%s]', async (dims) => {
    const values = given(dims);
    const attributes = [...epsilon, intAttribute('training_mode', 1), floatAttribute('momentum', 0.7)];
    for (const opset of [14, 15]) {
      const training = model(opset, `${text} mean_out variance_out`, values, attributes);
      await checkRule(training, values, { outputs: ['y'], others: [withBatch(values, 4)] });
      for (const name of ['x', 'scale', 'bias']) checkGradients(training, values, { wanted: [name], outputs: ['y'] });
    }
  });

  it('refuses a loss of the running statistics, and training outputs of opset 13', () => {
    const values = given([3, 2]);
    const training = [intAttribute('training_mode', 1)];
    expect(() => checkGradients(model(15, `${text} m v`, values, training), values)).toThrow(/Running statistics/);
    expect(() => checkGradients(model(15, `${text} m v`, values), values, { outputs: ['y'], wanted: ['x'] })).toThrow(
      /Running statistics/,
    );
  });
});

describe('LayerNormalization', () => {
  const given = (dims: readonly number[], normalized: readonly number[], biased: boolean): Given => ({
    x: randomArray(dims, 1),
    scale: randomArray(normalized, 2),
    ...(biased ? { bias: randomArray(normalized, 3) } : {}),
  });

  it.each([-1, 1, 2, -2, 0])(
    'from axis %i on, with and without bias, with and without its statistics',
    async (axis) => {
      const dims = [2, 3, 4];
      for (const biased of [true, false]) {
        const values = given(dims, dims.slice(axis), biased);
        const others = axis === 0 ? [] : [withBatch(values, 3)];
        const attributes = [...epsilon, intAttribute('axis', axis)];
        for (const outputs of ['y', 'y mean', 'y mean inverse']) {
          const text = `LayerNormalization x scale ${biased ? 'bias ' : ''}-> ${outputs}`;
          await checkRule(model(17, text, values, attributes), values, { outputs: ['y'], others });
        }
        const text = 'LayerNormalization x scale -> y';
        for (const wanted of [['x'], ['scale']])
          checkGradients(model(17, text, values, attributes), values, { wanted });
      }
    },
  );

  it('with a scale that is itself broadcast', async () => {
    const values = { ...given([2, 3, 4], [4], true), bias: randomArray([1], 5) };
    await checkRule(model(17, 'LayerNormalization x scale bias -> y', values, [intAttribute('axis', 1)]), values);
  });

  it('refuses a loss of its statistics', () => {
    const values = given([2, 3], [3], false);
    const text = 'LayerNormalization x scale -> y mean';
    expect(() => checkGradients(model(17, text, values), values)).toThrow(/statistics/);
  });
});

describe('RMSNormalization', () => {
  it.each([-1, 1, 2, 0])('from axis %i on', async (axis) => {
    const values: Given = { x: randomArray([2, 3, 4], 1), scale: randomArray([2, 3, 4].slice(axis), 2) };
    const others = axis === 0 ? [] : [withBatch(values, 3)];
    const attributes = [...epsilon, intAttribute('axis', axis)];
    await checkRule(model(23, 'RMSNormalization x scale -> y', values, attributes), values, { others });
  });
});

describe('GroupNormalization and InstanceNormalization', () => {
  it.each([1, 2, 4])('%i groups of 4 channels, parameters per group and per channel', async (groups) => {
    for (const opset of [18, 21]) {
      for (const dims of [
        [2, 4, 3],
        [2, 4, 2, 2],
      ]) {
        const parameters = [opset === 18 ? groups : 4];
        const values: Given = {
          x: randomArray(dims, 1),
          scale: randomArray(parameters, 2),
          bias: randomArray(parameters, 3),
        };
        const built = model(opset, 'GroupNormalization x scale bias -> y', values, [
          ...epsilon,
          intAttribute('num_groups', groups),
        ]);
        await checkRule(built, values, { others: [withBatch(values, 3)] });
        for (const name of ['x', 'scale', 'bias']) checkGradients(built, values, { wanted: [name] });
      }
    }
  });

  it('InstanceNormalization', async () => {
    for (const dims of [
      [2, 3, 4],
      [2, 3, 2, 3],
    ]) {
      const values: Given = { x: randomArray(dims, 1), scale: randomArray([3], 2), bias: randomArray([3], 3) };
      const built = model(13, 'InstanceNormalization x scale bias -> y', values, epsilon);
      await checkRule(built, values, { others: [withBatch(values, 3)] });
    }
  });
});

describe('LRN', () => {
  it('over any window of channels', async () => {
    for (const size of [1, 2, 3, 5]) {
      const attributes = [
        ...[intAttribute('size', size), floatAttribute('alpha', 0.3)],
        ...[floatAttribute('beta', 0.6), floatAttribute('bias', 1.5)],
      ];
      const values = { x: randomArray([2, 4, 2, 3], size) };
      const others = [withBatch(values, 3)];
      if (size % 2 === 1) await checkRule(model(13, 'LRN x -> y', values, attributes), values, { others });
      // ONNX Runtime takes odd sizes only.
      else checkGradients(model(13, 'LRN x -> y', values, attributes), values);
    }
  });
});

describe('LpNormalization and MeanVarianceNormalization', () => {
  it('LpNormalization along any axis, p 1 and 2', async () => {
    for (const p of [1, 2]) {
      for (const axis of [-1, 0, 1]) {
        const values = { x: map(randomArray([2, 3, 4], 1), (v) => v + 0.1 * Math.sign(v)) };
        const attributes = [intAttribute('p', p), intAttribute('axis', axis)];
        const others = axis === 0 ? [] : [withBatch(values, 3)];
        await checkRule(model(13, 'LpNormalization x -> y', values, attributes), values, { others });
      }
    }
  });

  it('MeanVarianceNormalization over any axes', async () => {
    for (const axes of [undefined, [2, 3], [1, -1]]) {
      const values = { x: randomArray([2, 3, 2, 3], 1) };
      const attributes = axes ? [intsAttribute('axes', axes)] : [];
      await checkRule(model(13, 'MeanVarianceNormalization x -> y', values, attributes), values);
    }
  });
});

describe('random normalizations', () => {
  it('any groups, epsilon and values', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(1, 2, 3, 6),
        fc.constantFrom(18, 21),
        fc.constantFrom(1e-5, 1e-2, 1),
        fc.integer({ min: 1, max: 999 }),
        (groups, opset, size, seed) => {
          const parameters = [opset === 18 ? groups : 6];
          const values: Given = {
            x: randomArray([1, 6, 3], seed),
            scale: randomArray(parameters, seed + 1),
            bias: randomArray(parameters, seed + 2),
          };
          const attributes = [floatAttribute('epsilon', size), intAttribute('num_groups', groups)];
          checkGradients(model(opset, 'GroupNormalization x scale bias -> y', values, attributes), values);
        },
      ),
      { numRuns: 20 },
    );
  });

  it('the reference agrees with ONNX Runtime on default attributes', async () => {
    const values: Given = { x: randomArray([2, 3, 4], 1), scale: randomArray([4], 2), bias: randomArray([4], 3) };
    await checkReference(model(17, 'LayerNormalization x scale bias -> y', values), values);
    const single = { x: values['x']! };
    await checkReference(model(13, 'LpNormalization x -> y', single), single);
  });
});
