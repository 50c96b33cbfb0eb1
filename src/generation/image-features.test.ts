import { describe, expect, it } from 'vitest';
import { stringAttribute } from '../onnx/attributes.js';
import { toBytes } from '../onnx/to-bytes.js';
import { blockNet } from '../testing/distillation-models.js';
import { Builder } from '../testing/flow-models.js';
import { engine } from '../testing/graph-writing.js';
import { normals } from '../testing/tiny-models.js';
import { fitImages, openImageFeatures } from './image-features.js';

describe('fitImages', () => {
  it.each([
    [7, 9],
    [6, 4],
    [5, 5],
  ])('resizes %i pixels to %i as the engine does', async (from, to) => {
    const b = new Builder(17, 1);
    const sizes = b.ints([2, 3, to, to]);
    const resized = b.op(
      'Resize',
      [b.input('x', [3, from, from]), undefined, undefined, sizes],
      [stringAttribute('mode', 'linear'), stringAttribute('coordinate_transformation_mode', 'half_pixel')],
    );
    const session = await engine.createSession(toBytes(b.done(resized)));
    const x = { type: 'float32' as const, dims: [2, 3, from, from], data: normals(6 * from * from, 2) };
    const expected = Object.values(await session.run({ x }))[0]!;
    const found = fitImages(x, [3, to, to], [0, 1], 'c');
    expect(found.dims).toEqual(expected.dims);
    (found.data as Float32Array).forEach((v, i) => {
      expect(v).toBeCloseTo(Number(expected.data[i]), 5);
    });
  });

  it('takes flat images, and brings their range to 0..1', () => {
    const flat = { type: 'float32' as const, dims: [1, 4], data: Float32Array.of(-1, 0, 0.5, 1) };
    const { dims, data } = fitImages(flat, [1, 2, 2], [-1, 1], 'c');
    expect([dims, [...data]]).toEqual([
      [1, 1, 2, 2],
      [0, 0.5, 0.75, 1],
    ]);
  });

  it('refuses other channels, and flat images that are not square', () => {
    const of = (dims: number[]) => () =>
      fitImages(
        { type: 'float32', dims, data: new Float32Array(dims.reduce((a, b) => a * b, 1)) },
        [1, 4, 4],
        [0, 1],
        'c',
      );
    expect(of([1, 3, 4, 4])).toThrow(/no images of 1 channels/);
    expect(of([1, 12])).toThrow(/no images of 1 channels/);
  });
});

describe('openImageFeatures', () => {
  it('gives what the last layer reads', async () => {
    const features = await openImageFeatures(engine, blockNet(1, 3, 1), 'c', [0, 1]);
    const images = { type: 'float32' as const, dims: [5, 2, 4, 4], data: normals(160, 3) };
    const { values, width } = await features.of(images);
    expect([width, values.length]).toEqual([3, 15]);
    await features.release();
  });

  it('refuses what is no classifier of images', async () => {
    const b = new Builder(17, 3);
    const net = b.done(b.dense(b.input('x', [6]), 6, 2));
    await expect(openImageFeatures(engine, net, 'mlp', [0, 1])).rejects.toThrow(/mlp is no classifier of float images/);
  });
});
