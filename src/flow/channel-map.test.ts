import { describe, expect, it } from 'vitest';
import { emptyChannelSums, solveChannelMap } from './channel-map.js';

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
