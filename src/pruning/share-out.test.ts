import { describe, expect, it } from 'vitest';
import { cutRanked, cutUniformly, type ShareOutRequest } from './share-out.js';
import type { WidthSite } from './sites.js';

/** Two groups of eight units each; a unit costs 1, or 2 in the second group. */
function request(goal: number, scores: readonly (readonly number[])[]): ShareOutRequest {
  const sites = [0, 1].map((group): WidthSite => ({
    ...{ kind: 'width', group, widths: [8, 6, 4, 2] },
    order: Array.from({ length: 8 }, (_, i) => 8 * group + i),
  }));
  return {
    ...{ sites, goal, classes: 16 },
    orders: sites.map(({ order }, i) => ({ units: order, scores: scores[i]! })),
    costOf: ({ removed }) => removed.reduce((sum, gone, unit) => sum + (1 - gone) * (unit < 8 ? 1 : 2), 0),
  };
}

const RISING = [1, 1, 2, 2, 3, 3, 9, 9];

describe('sharing out cuts', () => {
  it('takes the least scores of all groups first, until the goal is met', () => {
    const choice = cutRanked(request(16, [RISING, RISING.map((score) => score + 1.5)]));
    // 1, 2 and 2.5 go; then the cost is 24 - 4 - 4.
    expect([...choice.widths]).toEqual([
      [0, 4],
      [1, 6],
    ]);
  });

  it('never leaves a group’s units out of order for a score that falls', () => {
    const choice = cutRanked(request(20, [[5, 5, 0, 0, 0, 0, 9, 9], RISING]));
    expect([...choice.widths]).toEqual([[1, 6]]);
  });

  it('takes the same share of every group', () => {
    expect([...cutUniformly(request(12, [RISING, RISING])).widths]).toEqual([
      [0, 4],
      [1, 4],
    ]);
  });

  it('stops where there is nothing left', () => {
    for (const share of [cutRanked, cutUniformly])
      expect([...share(request(0, [RISING, RISING])).widths.values()]).toEqual([2, 2]);
  });
});
