import { describe, expect, it } from 'vitest';
import { normals } from '../testing/tiny-models.js';
import { emptyChannelSums, solveChannelMap, sumsBetween, type ChannelSums } from './channel-map.js';

/** Sums over samples of [inputs + outputs] values, for some of them. */
function sumsOf(samples: readonly Float32Array[], inputs: readonly number[], outputs: readonly number[]): ChannelSums {
  const sums = emptyChannelSums(inputs.length, outputs.length);
  for (const sample of samples) {
    inputs.forEach((a, i) => {
      sums.sumX[i]! += sample[a]!;
      inputs.forEach((b, j) => (sums.gram[i * inputs.length + j]! += sample[a]! * sample[b]!));
      outputs.forEach((b, j) => (sums.cross[j * inputs.length + i]! += sample[a]! * sample[b]!));
    });
    outputs.forEach((b, j) => (sums.sumY[j]! += sample[b]!));
    sums.count++;
  }
  return sums;
}

describe('sumsBetween', () => {
  it('gives the sums of the channels that are left', () => {
    const samples = Array.from({ length: 20 }, (_, s) => normals(7, s + 1));
    const all = sumsOf(samples, [0, 1, 2, 3], [4, 5, 6]);
    expect(sumsBetween(all, [0, 2, 3], [0, 2])).toEqual(sumsOf(samples, [0, 2, 3], [4, 6]));
  });
});

describe('solveChannelMap', () => {
  it('survives sums whose rounding exceeds the variance of a saturated channel', () => {
    // x0 varies between 0 and 0.2, x1 is 3 everywhere; its second moment is short by what float32 sums lose.
    const sums = emptyChannelSums(2, 1);
    sums.count = 1000;
    sums.sumX.set([100, 3000]);
    sums.gram.set([20, 300, 300, 9000 * (1 - 2e-4)]);
    // y = 2 x0 + 1
    sums.sumY.set([1200]);
    sums.cross.set([2 * 20 + 100, 2 * 300 + 3000]);
    const { matrix, bias } = solveChannelMap(sums);
    expect([...matrix, ...bias].every(Number.isFinite)).toBe(true);
    // Shrunk by the ridge, but of the right sign and not beyond the truth.
    expect(matrix[0]).toBeGreaterThan(0.5);
    expect(matrix[0]).toBeLessThanOrEqual(2);
    expect(matrix[0]! * 0.1 + matrix[1]! * 3 + bias[0]!).toBeCloseTo(1.2, 5);
  });
});
