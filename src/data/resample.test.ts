import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { cropOrPad, interpolations, resample, type Interpolation, type Pixels } from './resample.js';

/** A fixed 5 x 6 gray test image. */
const IMAGE: Pixels = {
  data: Uint8Array.from({ length: 30 }, (_, i) => {
    const [y, x] = [Math.floor(i / 6), i % 6];
    return (x * x * 37 + y * 91 + x * y * 13) % 256;
  }),
  height: 5,
  width: 6,
  channels: 1,
};

/** What Pillow 11.3's Image.resize gives for IMAGE at 3 x 4 and 7 x 8. */
const PILLOW: Readonly<Record<Interpolation, readonly [small: readonly number[], large: readonly number[]]>> = {
  nearest: [
    [0, 148, 77, 157, 182, 126, 81, 213, 108, 104, 85, 13],
    // prettier-ignore
    [0, 37, 37, 148, 77, 80, 80, 157, 91, 141, 141, 9, 207, 223, 223, 57, 91, 141, 141, 9, 207, 223, 223, 57, 182, 245, 245, 126, 81, 110, 110, 213, 17, 93, 93, 243, 211, 253, 253, 113, 17, 93, 93, 243, 211, 253, 253, 113, 108, 197, 197, 104, 85, 140, 140, 13],
  ],
  bilinear: [
    [55, 91, 131, 124, 149, 148, 146, 160, 100, 157, 158, 106],
    // prettier-ignore
    [0, 23, 79, 139, 86, 79, 109, 157, 52, 80, 86, 79, 141, 158, 139, 100, 117, 150, 123, 59, 155, 183, 158, 102, 182, 221, 200, 120, 87, 99, 149, 213, 64, 110, 164, 205, 178, 198, 186, 142, 56, 107, 155, 180, 160, 186, 154, 70, 108, 164, 162, 102, 87, 119, 92, 13],
  ],
  bicubic: [
    [54, 86, 132, 123, 153, 150, 151, 166, 96, 163, 161, 104],
    // prettier-ignore
    [0, 8, 80, 154, 78, 60, 106, 168, 43, 74, 78, 69, 150, 174, 139, 86, 121, 169, 121, 29, 167, 210, 161, 84, 179, 230, 210, 116, 83, 90, 150, 218, 49, 91, 168, 229, 188, 213, 198, 145, 42, 93, 157, 190, 164, 205, 160, 55, 108, 177, 173, 89, 75, 122, 90, 0],
  ],
  lanczos: [
    [57, 82, 129, 120, 156, 151, 156, 171, 93, 166, 163, 105],
    // prettier-ignore
    [0, 0, 93, 161, 78, 39, 110, 176, 31, 65, 70, 72, 151, 186, 135, 78, 132, 198, 120, 11, 157, 226, 154, 80, 175, 231, 216, 112, 82, 82, 156, 220, 49, 80, 183, 243, 191, 212, 206, 160, 35, 82, 161, 187, 166, 223, 157, 39, 111, 186, 183, 77, 64, 125, 85, 0],
  ],
};

const image = fc
  .record({
    height: fc.integer({ min: 1, max: 9 }),
    width: fc.integer({ min: 1, max: 9 }),
    channels: fc.integer({ min: 1, max: 4 }),
  })
  .chain((shape) => {
    const size = shape.height * shape.width * shape.channels;
    return fc.uint8Array({ minLength: size, maxLength: size }).map((data): Pixels => ({ ...shape, data }));
  });
const interpolation = fc.constantFrom(...interpolations);
const side = fc.integer({ min: 1, max: 12 });

describe('resample', () => {
  it.each(interpolations)('gives the pixels Pillow gives: %s', (name) => {
    expect(Array.from(resample(IMAGE, { height: 3, width: 4 }, name).data)).toEqual(PILLOW[name][0]);
    expect(Array.from(resample(IMAGE, { height: 7, width: 8 }, name).data)).toEqual(PILLOW[name][1]);
  });

  it('leaves an image of the same size as it is', () => {
    fc.assert(
      fc.property(image, interpolation, (pixels, name) => {
        expect(resample(pixels, pixels, name)).toEqual(pixels);
      }),
    );
  });

  it('keeps a constant image constant at any size', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 255 }),
        side,
        side,
        side,
        interpolation,
        (value, from, height, width, name) => {
          const flat = { data: new Uint8Array(from * 3 * 2).fill(value), height: from, width: 3, channels: 2 };
          expect(resample(flat, { height, width }, name).data.every((pixel) => pixel === value)).toBe(true);
        },
      ),
    );
  });

  it('computes the window of the whole result', () => {
    fc.assert(
      fc.property(image, side, side, interpolation, fc.nat(), fc.nat(), (pixels, height, width, name, a, b) => {
        const top = a % height;
        const left = b % width;
        const window = { top, left, height: height - top, width: width - left };
        expect(resample(pixels, { height, width }, name, window)).toEqual(
          cropOrPad(resample(pixels, { height, width }, name), window),
        );
      }),
    );
  });
});

describe('cropOrPad', () => {
  it('takes each pixel from its place and black from outside', () => {
    fc.assert(
      fc.property(
        image,
        fc.integer({ min: -5, max: 5 }),
        fc.integer({ min: -5, max: 5 }),
        side,
        side,
        (pixels, top, left, height, width) => {
          const out = cropOrPad(pixels, { top, left, height, width });
          expect(out.data.length).toBe(height * width * pixels.channels);
          for (let i = 0; i < out.data.length; i++) {
            const c = i % pixels.channels;
            const x = (Math.floor(i / pixels.channels) % width) + left;
            const y = Math.floor(i / pixels.channels / width) + top;
            const inside = x >= 0 && y >= 0 && x < pixels.width && y < pixels.height;
            expect(out.data[i]).toBe(inside ? pixels.data[(y * pixels.width + x) * pixels.channels + c] : 0);
          }
        },
      ),
    );
  });
});
