import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { nodeEngine } from '../node/onnxruntime.js';
import { normals } from '../testing/tiny-models.js';
import {
  centred,
  ckaMatrix,
  linearCka,
  openGramMaker,
  type CentredGram,
  type Features,
  type GramMaker,
} from './cka.js';

let maker: GramMaker;
beforeAll(async () => {
  maker = await openGramMaker(nodeEngine({ threads: 1 }));
});
afterAll(() => maker.release());

const features = (samples: number, width: number, seed: number, offset = 0): Features => ({
  ...{ samples, width },
  values: normals(samples * width, seed).map((v) => v + offset),
});
const gramOf = async (x: Features): Promise<CentredGram> => centred(await maker.of(x));

/** Row-major products and means as the definition has them. */
function byDefinition(x: Features, y: Features): number {
  const centre = ({ samples, width, values }: Features): number[][] => {
    const column = (k: number): number[] => Array.from({ length: samples }, (_, i) => values[i * width + k]);
    return Array.from({ length: width }, (_, k) => {
      const mean = column(k).reduce((a, b) => a + b, 0) / samples;
      return column(k).map((v) => v - mean);
    });
  };
  const square = (a: number[][], b: number[][]): number =>
    a.reduce((sum, p) => sum + b.reduce((s, q) => s + p.reduce((t, v, i) => t + v * q[i], 0) ** 2, 0), 0);
  const [a, b] = [centre(x), centre(y)];
  return square(b, a) / Math.sqrt(square(a, a) * square(b, b));
}

/** x reflected at the plane with the normal `u`, then scaled: orthogonal but for the factor. */
function reflected({ samples, width, values }: Features, seed: number, scale: number): Features {
  const u = normals(width, seed);
  const square = u.reduce((sum, v) => sum + v * v, 0);
  const out = new Float32Array(values.length);
  for (let i = 0; i < samples; i++) {
    const row = values.subarray(i * width, (i + 1) * width);
    const along = row.reduce((sum, v, k) => sum + v * u[k], 0);
    row.forEach((v, k) => (out[i * width + k] = scale * (v - (2 * along * u[k]) / square)));
  }
  return { samples, width, values: out };
}

const size = fc.integer({ min: 3, max: 12 });
const width = fc.integer({ min: 1, max: 9 });
const seed = fc.integer({ min: 0, max: 9999 });

describe('linearCka', () => {
  it('is what the definition with products of features says, in 0..1 and symmetric', async () => {
    await fc.assert(
      fc.asyncProperty(size, width, width, seed, async (n, d, e, s) => {
        const [x, y] = [features(n, d, s, 0.5), features(n, e, s + 1, -2)];
        const [a, b] = [await gramOf(x), await gramOf(y)];
        const cka = linearCka(a, b);
        expect(cka).toBeCloseTo(byDefinition(x, y), 8);
        expect(cka).toBeGreaterThanOrEqual(0);
        expect(cka).toBeLessThanOrEqual(1);
        expect(linearCka(b, a)).toBe(cka);
      }),
      { numRuns: 40 },
    );
  });

  it('is 1 for features that are rotated and scaled, and keeps what it is with others', async () => {
    await fc.assert(
      fc.asyncProperty(size, width, seed, fc.constantFrom(-3, 0.01, 250), async (n, d, s, scale) => {
        const [x, y] = [features(n, d, s), features(n, 4, s + 1)];
        const [a, turned, other] = [await gramOf(x), await gramOf(reflected(x, s + 2, scale)), await gramOf(y)];
        expect(linearCka(a, a)).toBeCloseTo(1, 12);
        expect(linearCka(a, turned)).toBeCloseTo(1, 5);
        expect(linearCka(turned, other)).toBeCloseTo(linearCka(a, other), 5);
      }),
      { numRuns: 20 },
    );
  });

  it('multiplies wide features block by block', async () => {
    const wide = features(5, 5000, 3);
    const narrow: Features = { samples: 5, width: 5, values: normals(25, 4) };
    expect(linearCka(await gramOf(wide), await gramOf(narrow))).toBeCloseTo(byDefinition(wide, narrow), 8);
  });

  it('is 0 for features that are the same for all samples, and refuses other samples', async () => {
    for (let n = 3; n < 12; n++) {
      const values = Float32Array.from({ length: 3 * n }, (_, i) => [0.1, 0.7, -0.3][i % 3]);
      expect(linearCka(await gramOf({ samples: n, width: 3, values }), await gramOf(features(n, 3, 1)))).toBe(0);
    }
    const [a, b] = [await gramOf(features(4, 3, 1)), await gramOf(features(5, 3, 1))];
    expect(() => linearCka(a, b)).toThrow(/4 and of 5 samples/);
  });

  it('has the layers of the teacher as rows', async () => {
    const grams = await Promise.all([1, 2, 3].map((s) => gramOf(features(6, 4, s))));
    const matrix = ckaMatrix(grams, [grams[2], grams[0]]);
    expect(matrix).toHaveLength(3);
    expect(matrix[1]).toEqual([linearCka(grams[1], grams[2]), linearCka(grams[1], grams[0])]);
    expect(matrix[0][1]).toBeCloseTo(1, 12);
  });
});
