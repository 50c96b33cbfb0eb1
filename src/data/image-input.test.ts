import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FlowCompressError } from '../errors.js';
import type { HostType, ValueSignature } from '../runtime/engine.js';
import { planImageInput, type SourceShape } from './image-input.js';
import type { PreprocessOptions } from './preprocess.js';
import { resample, type Pixels } from './resample.js';

const input = (dims: (number | string)[], type: HostType = 'float32'): ValueSignature => ({ name: 'x', type, dims });
const rgb = (height: number, width: number): Pixels => ({
  data: Uint8Array.from({ length: height * width * 3 }, (_, i) => (i * 89) % 256),
  height,
  width,
  channels: 3,
});

function convert(
  signature: ValueSignature,
  options: PreprocessOptions,
  image: Pixels,
  source?: SourceShape,
): { dims: readonly number[]; values: number[] } {
  const plan = planImageInput(signature, options, source);
  const tensor = plan.create(2);
  plan.put(image, tensor, 1);
  const values = Array.from(tensor.data, Number);
  expect(values.slice(0, plan.elements).every((value) => value === 0)).toBe(true);
  return { dims: tensor.dims, values: values.slice(plan.elements) };
}

function message(call: () => unknown): string {
  expect(call).toThrow(FlowCompressError);
  try {
    call();
  } catch (error) {
    return (error as FlowCompressError).message + ' | ' + String((error as FlowCompressError).hint);
  }
  return '';
}

describe('image input', () => {
  it('normalises into NCHW and NHWC, RGB and BGR', () => {
    const size = fc.integer({ min: 2, max: 6 });
    fc.assert(
      fc.property(
        size,
        size,
        fc.constantFrom('nchw' as const, 'nhwc' as const),
        fc.constantFrom('rgb' as const, 'bgr' as const),
        (height, width, layout, color) => {
          const image = rgb(height, width);
          const options = { mean: [0.1, 0.2, 0.4], std: [0.5, 0.25, 2], layout, color };
          const dims = layout === 'nchw' ? ['N', 3, height, width] : ['N', height, width, 3];
          const { values } = convert(input(dims), options, image);
          for (let c = 0; c < 3; c++)
            for (let y = 0; y < height; y++)
              for (let x = 0; x < width; x++) {
                const pixel = image.data[(y * width + x) * 3 + (color === 'bgr' ? 2 - c : c)];
                const at = layout === 'nchw' ? (c * height + y) * width + x : (y * width + x) * 3 + c;
                expect(values[at]).toBeCloseTo((pixel / 255 - options.mean[c]) / options.std[c], 5);
              }
        },
      ),
    );
  });

  it('resizes to the size of the model without being told', () => {
    const image = rgb(9, 7);
    const { dims, values } = convert(input(['N', 4, 5, 3]), { scale: 'none' }, image);
    expect(dims).toEqual([2, 4, 5, 3]);
    expect(values).toEqual(Array.from(resample(image, { height: 4, width: 5 }, 'bilinear').data));
  });

  it('resizes the short side and crops the centre', () => {
    const image = rgb(12, 20);
    const whole = resample(image, { height: 6, width: 10 }, 'bicubic');
    const expected = [];
    for (let y = 1; y < 5; y++) expected.push(...whole.data.slice((y * 10 + 3) * 3, (y * 10 + 7) * 3));
    const options = { size: 6, crop: 4, scale: 'none', layout: 'nhwc', interpolation: 'bicubic' } as const;
    expect(convert(input(['N', 'h', 'w', 'c']), options, image).values).toEqual(expected);
    // The model's own size is the crop when the size is larger than it.
    expect(convert(input(['N', 4, 4, 3]), { ...options, crop: undefined }, image).values).toEqual(expected);
  });

  it('takes a size alone as exact', () => {
    const image = rgb(12, 20);
    const { dims, values } = convert(input(['N', 'h', 'w', 3]), { size: 6, scale: 'none' }, image);
    expect(dims).toEqual([2, 6, 6, 3]);
    expect(values).toEqual(Array.from(resample(image, { height: 6, width: 6 }, 'bilinear').data));
  });

  it('pads a crop that is larger than the image', () => {
    const image = { data: Uint8Array.from([1, 2, 3, 4]), height: 2, width: 2, channels: 1 };
    expect(convert(input(['N', 1, 3, 4]), { crop: [3, 4], scale: 'none' }, image).values).toEqual([
      0, 1, 2, 0, 0, 3, 4, 0, 0, 0, 0, 0,
    ]);
  });

  it('makes gray of colour with the weights of ITU-R 601, and colour of gray', () => {
    // Values from Pillow's convert('L').
    const image = {
      data: Uint8Array.from([200, 30, 60, 0, 0, 0, 255, 255, 255, 1, 2, 3, 10, 250, 130]),
      height: 1,
      width: 5,
      channels: 3,
    };
    expect(convert(input(['N', 1, 1, 5]), { scale: 'none' }, image).values).toEqual([84, 0, 255, 2, 165]);
    const gray = { data: Uint8Array.from([7, 9]), height: 1, width: 2, channels: 1 };
    expect(convert(input(['N', 3, 1, 2]), { scale: 'none' }, gray).values).toEqual([7, 9, 7, 9, 7, 9]);
  });

  it('feeds raw pixels to uint8 and wider integer inputs', () => {
    const image = rgb(2, 2);
    expect(convert(input(['N', 2, 2, 3], 'uint8'), { mean: [0.5] }, image).values).toEqual(Array.from(image.data));
    expect(convert(input(['N', 2, 2, 3], 'int64'), { mean: [0.5] }, image).values).toEqual(Array.from(image.data));
  });

  it('feeds half precision as its bits', () => {
    const gray = { data: Uint8Array.from([0, 1, 255, 2]), height: 2, width: 2, channels: 1 };
    expect(convert(input(['N', 1, 2, 2], 'float16'), { scale: 'none' }, gray).values).toEqual([
      0, 0x3c00, 0x5bf8, 0x4000,
    ]);
  });

  it('flattens images for inputs of rank 2', () => {
    const gray = { data: Uint8Array.from([1, 2, 3, 4, 5, 6]), height: 2, width: 3, channels: 1 };
    const { dims, values } = convert(input(['N', 6]), { scale: 'none' }, gray, gray);
    expect(dims).toEqual([2, 6]);
    expect(values).toEqual([1, 2, 3, 4, 5, 6]);
    expect(message(() => planImageInput(input(['N', 7]), {}, gray))).toMatch(/7 values.*2x3x1 = 6/);
  });

  it('asks for what the shape leaves open', () => {
    expect(message(() => planImageInput(input(['N', 3, 'h', 'w']), {}))).toContain('--size');
    expect(message(() => planImageInput(input(['N', 3, 8, 3]), {}))).toContain('--layout');
    expect(message(() => planImageInput(input(['N', 'c', 8, 8]), {}))).toContain('--layout');
    expect(planImageInput(input(['N', 'c', 8, 8]), { layout: 'nchw' }).dims(1)).toEqual([1, 3, 8, 8]);
  });

  it('refuses what contradicts the shape, saying what was expected and found', () => {
    expect(message(() => planImageInput(input(['N', 3, 8, 8]), { crop: 9 }))).toMatch(/8x8.*9x9/);
    expect(message(() => planImageInput(input(['N', 3, 8, 8]), { size: 4 }))).toMatch(/8x8.*4x4/);
    expect(message(() => planImageInput(input(['N', 3, 8, 8]), { color: 'gray' }))).toContain('gray');
    expect(message(() => planImageInput(input(['N', 5]), {}))).toContain('--size');
    expect(message(() => planImageInput(input(['N', 2, 2, 2, 2]), {}))).toContain('[N, 2, 2, 2, 2]');
  });

  it('converts 10,000 CIFAR images well under a second', () => {
    const plan = planImageInput(input(['N', 3, 32, 32]), { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] });
    const image = rgb(32, 32);
    const tensor = plan.create(100);
    const start = performance.now();
    for (let i = 0; i < 10_000; i++) plan.put(image, tensor, i % 100);
    expect(performance.now() - start).toBeLessThan(1000);
  });
});
