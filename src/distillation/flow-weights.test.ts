import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { interpolation } from './fad.js';
import { adaptiveWeights, curriculum, layerWeights, normalised, selected } from './flow-weights.js';

const flow = fc.double({ min: 0, max: 2, noNaN: true });
const flows = fc.array(flow, { minLength: 1, maxLength: 12 });
const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);
const closeTo = (found: readonly number[], wanted: readonly number[]): void => {
  expect(found).toHaveLength(wanted.length);
  found.forEach((v, i) => {
    expect(v).toBeCloseTo(wanted[i]!, 12);
  });
};

describe('layerWeights', () => {
  it('adds a tenth of the slope to the share, and raises what is negative', () => {
    // Shares 0.2, 0.5, 0.3; slopes 0.3, -0.2, -0.2 of flows that sum to 1.
    closeTo(layerWeights([0.2, 0.5, 0.3]), normalised([0.23, 0.48, 0.28]));
    // Shares 0.99, 0.01; slopes -9.8, -9.8: raised by the lower one, which is then 0.
    closeTo(layerWeights([9.9, 0.1]), [1, 0]);
    closeTo(layerWeights([0.7]), [1]);
    closeTo(layerWeights([0, 0, 0, 0]), [0.25, 0.25, 0.25, 0.25]);
  });

  it('sums to 1 without a negative weight', () => {
    fc.assert(
      fc.property(flows, (given) => {
        const weights = layerWeights(given);
        expect(sum(weights)).toBeCloseTo(1, 9);
        expect(Math.min(...weights)).toBeGreaterThanOrEqual(0);
      }),
    );
  });
});

describe('selected', () => {
  it('takes critical layers that the student has not yet right', () => {
    // Mean 0.35, deviation 0.31: only the last two are above 0.66.
    const teacher = [0.1, 0.2, 0.1, 0.2, 0.1, 0.2, 0.9, 0.9];
    const student = [0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.5, 0.85];
    expect(selected(teacher, student)).toEqual([0, 0, 0, 0, 0, 0, 1, 0]);
  });

  it('counts the two largest as critical where fewer stand out', () => {
    // Mean 0.35, deviation 0.31: only 0.8 is above 0.66.
    expect(selected([0.1, 0.2, 0.3, 0.8], [0, 0, 0, 0])).toEqual([0, 0, 1, 1]);
    expect(selected([0.4, 0.4, 0.4], [0, 0, 0])).toEqual([1, 1, 0]);
  });

  it('takes all with an error where no critical one is off by a tenth', () => {
    expect(selected([0.1, 0.2, 0.3, 0.8], [0.1, 0.9, 0.31, 0.81])).toEqual([0, 1, 1, 1]);
    expect(selected([0.1, 0.2], [0.1, 0.2])).toEqual([0, 0]);
  });

  it('is 0 or 1, never for a layer without an error, and the same every time', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(flow, flow), { minLength: 1, maxLength: 12 }), (pairs) => {
        const [teacher, student] = [pairs.map(([a]) => a), pairs.map(([, b]) => b)];
        const mask = selected(teacher, student);
        expect(selected(teacher, student)).toEqual(mask);
        mask.forEach((m, l) => {
          expect([0, 1]).toContain(m);
          if (teacher[l] === student[l]) expect(m).toBe(0);
        });
        const off = teacher.some((d, l) => Math.abs(d - student[l]!) > 0);
        expect(mask.includes(1)).toBe(off);
        // The order of layers does not matter where no two are alike.
        const back = selected([...teacher].reverse(), [...student].reverse()).reverse();
        if (new Set(teacher).size === teacher.length) expect(back).toEqual(mask);
      }),
    );
  });
});

describe('curriculum', () => {
  const depths = [0, 0.24, 0.25, 0.5, 0.74, 0.75, 1];
  it.each<[number, number[], number]>([
    [0, [1, 1, 0, 0, 0, 0, 0], 0.25],
    [0.124, [1, 1, 0, 0, 0, 0, 0], 0.25],
    [0.125, [0.5, 0.5, 1, 0, 0, 0, 0], 0.5],
    [0.25, [0.5, 0.5, 0.5, 1, 1, 0, 0], 0.75],
    [0.49, [0.5, 0.5, 0.5, 0.5, 0.5, 1, 1], 1],
    [0.5, [1, 1, 1, 1, 1, 1, 1], 1],
    [1, [1, 1, 1, 1, 1, 1, 1], 1],
  ])('at %d of the training', (share, mask, strength) => {
    expect(curriculum(depths, share)).toEqual({ mask, strength });
  });

  it('never takes back what a layer counts before the end of the stages, but halves it once', () => {
    fc.assert(
      fc.property(
        fc.double({ min: 0, max: 1, noNaN: true }),
        fc.double({ min: 0, max: 0.999, noNaN: true }),
        (s, p) => {
          const later = curriculum([s], Math.min(1, p + 0.125));
          const now = curriculum([s], p);
          expect(later.strength).toBeGreaterThanOrEqual(now.strength);
          if (now.mask[0]! > 0) expect(later.mask[0]!).toBeGreaterThanOrEqual(0.5);
        },
      ),
    );
  });
});

describe('adaptiveWeights', () => {
  it('is alpha = 1/Z, beta = (DS / (DT + DS)) / Z, gamma = (DT / (DT + DS)) / Z with Z their sum', () => {
    fc.assert(
      fc.property(flow, flow, (teacher, student) => {
        const found = adaptiveWeights(teacher, student);
        expect(found.task + found.answers + found.flow).toBeCloseTo(1, 12);
        expect(found.task).toBe(0.5);
        if (teacher + student > 1e-100) {
          const raw = [1, student / (teacher + student), teacher / (teacher + student)];
          closeTo([found.task, found.answers, found.flow], normalised(raw));
        } else expect(Number.isFinite(found.flow)).toBe(true);
      }),
    );
    expect(adaptiveWeights(0.3, 0.1)).toEqual({ task: 0.5, answers: 0.1 / 0.8, flow: 0.3 / 0.8 });
  });
});

describe('interpolation', () => {
  const depths = fc
    .uniqueArray(fc.integer({ min: 0, max: 1000 }), { minLength: 1, maxLength: 8 })
    .map((given) => given.sort((a, b) => a - b).map((d) => d / 1000));

  it('is linear between the depths and constant beyond them', () => {
    fc.assert(
      fc.property(
        depths,
        fc.integer({ min: 2, max: 40 }),
        fc.array(flow, { minLength: 8, maxLength: 8 }),
        (at, n, y) => {
          const matrix = interpolation(at, n);
          for (let g = 0; g < n; g++) {
            const s = g / (n - 1);
            const value = at.reduce((total, _, l) => total + matrix[l]![g]! * y[l]!, 0);
            let wanted = s <= at[0]! ? y[0]! : y[at.length - 1]!;
            for (let l = 1; l < at.length; l++)
              if (s > at[l - 1]! && s <= at[l]!)
                wanted = y[l - 1]! + ((y[l]! - y[l - 1]!) * (s - at[l - 1]!)) / (at[l]! - at[l - 1]!);
            expect(value).toBeCloseTo(wanted, 9);
          }
        },
      ),
    );
  });
});
