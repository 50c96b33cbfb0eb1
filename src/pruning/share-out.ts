/** Cuts shared out over the groups without measuring: one list by score, or the same share of every group. */
import type { RemovalOrder } from './removal-order.js';
import { takenBy, type Choice, type Site, type Taken, type WidthSite } from './sites.js';

export interface ShareOutRequest {
  readonly sites: readonly Site[];
  /** By place of the group in the list. */
  readonly orders: readonly (RemovalOrder | undefined)[];
  readonly classes: number;
  readonly costOf: (taken: Taken) => number;
  readonly goal: number;
}

/** The first choice on the way that meets the goal; where none does, the cheapest. */
function walk(request: ShareOutRequest, moves: readonly (readonly [group: number, width: number])[]): Choice {
  const widths = new Map<number, number>();
  const choice = { widths, layers: new Set<string>() };
  const cost = (): number => request.costOf(takenBy(choice, request.sites, request.classes));
  for (const [group, width] of moves) {
    if (cost() <= request.goal) break;
    widths.set(group, width);
  }
  return choice;
}

/** By rising score of what goes next; a group never goes on before what it has left is worth as little. */
export function cutRanked(request: ShareOutRequest): Choice {
  const moves = widthSites(request.sites).flatMap(({ group, order, widths }) => {
    const scores = request.orders[group]?.scores ?? order.map((_, i) => i / order.length);
    let score = -Infinity;
    return widths.slice(1).map((width, i) => {
      const [from, to] = [order.length - widths[i]!, order.length - width];
      const part = scores.slice(from, to);
      score = Math.max(score, part.reduce((sum, value) => sum + value, 0) / part.length);
      return { group, width, score };
    });
  });
  moves.sort((a, b) => a.score - b.score);
  return walk(
    request,
    moves.map(({ group, width }) => [group, width] as const),
  );
}

/** Always the group of which the largest share is left. */
export function cutUniformly(request: ShareOutRequest): Choice {
  const moves = widthSites(request.sites).flatMap(({ group, order, widths }) =>
    widths.slice(1).map((width) => ({ group, width, left: width / order.length })),
  );
  moves.sort((a, b) => b.left - a.left);
  return walk(
    request,
    moves.map(({ group, width }) => [group, width] as const),
  );
}

function widthSites(sites: readonly Site[]): WidthSite[] {
  return sites.filter((site): site is WidthSite => site.kind === 'width');
}
