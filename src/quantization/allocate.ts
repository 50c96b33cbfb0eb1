/**
 * Bit allocation: the width of every layer that minimises the summed damage under a budget of code bytes.
 * Dynamic programming along the layers over (width of the previous layer, budget bucket), then a repair step that spends
 * what the buckets rounded away.
 */
import { FlowCompressError } from '../errors.js';

/** One layer's choices. `cost` in bytes and `damage` are given per width. */
export interface AllocationItem {
  readonly name: string;
  /** Widths that this layer may take, ascending: the floor is the first. */
  readonly widths: readonly number[];
  readonly cost: (bits: number) => number;
  readonly damage: (bits: number) => number;
  /** Why the lowest widths are missing, for the error of an infeasible budget. */
  readonly floorReason?: string;
}

export interface AllocationOptions {
  /** Sum of the costs may not exceed this (bytes). */
  readonly budget: number;
  /** Weight of the penalty for jumps of more than two bits between neighbours, in units of the mean damage. */
  readonly smoothness?: number;
  /** Number of budget buckets; the solution is optimal up to one bucket per layer. */
  readonly buckets?: number;
}

/**
 * @returns the width of every item, in order.
 * @throws FlowCompressError `infeasible` when even the lowest widths cost more than the budget; names the floors that bind.
 */
export function allocateBits(items: readonly AllocationItem[], options: AllocationOptions): number[] {
  if (items.length === 0) return [];
  const minimum = refuseInfeasible(items, options.budget);
  const maximum = items.reduce((sum, item) => sum + item.cost(item.widths.at(-1)!), 0);
  if (maximum <= options.budget && !options.smoothness) return items.map((item) => item.widths.at(-1)!);
  const bits = solve(items, Math.min(options.budget, maximum), minimum, options);
  return repair(items, bits, options.budget);
}

/**
 * @returns what the lowest widths cost together
 * @throws FlowCompressError `infeasible` as `allocateBits`
 */
export function refuseInfeasible(items: readonly Omit<AllocationItem, 'damage'>[], budget: number): number {
  const minimum = items.reduce((sum, item) => sum + item.cost(item.widths[0]!), 0);
  if (minimum <= budget) return minimum;
  const binding = items
    .filter((item) => item.floorReason !== undefined)
    .sort((a, b) => b.cost(b.widths[0]!) - a.cost(a.widths[0]!))
    .slice(0, 5)
    .map((item) => `${item.name} >= ${String(item.widths[0])} bits (${item.floorReason ?? ''})`);
  const others = items.filter((item) => item.floorReason === undefined);
  if (others.length > 0) {
    const least = Math.min(...others.map((item) => item.widths[0]!));
    binding.push(`${items.length > others.length ? 'all other layers' : 'every layer'} >= ${String(least)} bits`);
  }
  throw new FlowCompressError(
    'infeasible',
    `The budget of ${String(Math.floor(budget))} bytes for weight codes cannot be met: the floors alone need ${String(Math.ceil(minimum))} bytes. Binding floors: ${binding.join('; ')}.`,
    { hint: 'Raise the budget, or lower the floors (--min-bits, --edge-bits, --attention-bits, --gradient-bits).' },
  );
}

function solve(
  items: readonly AllocationItem[],
  budget: number,
  minimum: number,
  options: AllocationOptions,
): number[] {
  const buckets = options.buckets ?? 4096;
  // Only what exceeds every layer's floor is distributed; costs are rounded up to whole buckets.
  const unit = Math.max((budget - minimum) / buckets, 1e-9);
  const extra = items.map((item) =>
    item.widths.map((b) => Math.ceil((item.cost(b) - item.cost(item.widths[0]!)) / unit - 1e-9)),
  );
  const damage = items.map((item) => item.widths.map((b) => item.damage(b)));
  const all = damage.flat();
  const penalty = (options.smoothness ?? 0) * (all.reduce((a, b) => a + b, 0) / all.length);
  const size = buckets + 1;
  // best[k][j]: least damage with the current layer at its k-th width and j buckets spent.
  let best = items[0]!.widths.map((_, k) => {
    const row = new Float64Array(size).fill(Infinity);
    if (extra[0]![k]! <= buckets) row[extra[0]![k]!] = damage[0]![k]!;
    return row;
  });
  const choice: Int8Array[][] = [];
  for (let l = 1; l < items.length; l++) {
    const widths = items[l]!.widths;
    const before = items[l - 1]!.widths;
    const next = widths.map(() => new Float64Array(size).fill(Infinity));
    const from = widths.map(() => new Int8Array(size).fill(-1));
    widths.forEach((width, k) => {
      const shift = extra[l]![k]!;
      const own = damage[l]![k]!;
      before.forEach((previous, p) => {
        const jump = own + penalty * Math.max(0, Math.abs(width - previous) - 2);
        const source = best[p]!;
        for (let j = 0; j + shift < size; j++) {
          const total = source[j]! + jump;
          if (total < next[k]![j + shift]!) {
            next[k]![j + shift] = total;
            from[k]![j + shift] = p;
          }
        }
      });
    });
    choice.push(from);
    best = next;
  }
  let k = 0;
  let j = 0;
  let least = Infinity;
  best.forEach((row, index) => {
    for (let bucket = 0; bucket < size; bucket++) {
      if (row[bucket]! < least) {
        least = row[bucket]!;
        k = index;
        j = bucket;
      }
    }
  });
  const picked = new Array<number>(items.length);
  for (let l = items.length - 1; l >= 0; l--) {
    picked[l] = k;
    if (l === 0) break;
    const previous = choice[l - 1]![k]![j]!;
    j -= extra[l]![k]!;
    k = previous;
  }
  return picked.map((index, l) => items[l]!.widths[index]!);
}

/** Raises single layers, best gain per byte first, as long as the exact costs leave room. */
function repair(items: readonly AllocationItem[], bits: number[], budget: number): number[] {
  const result = [...bits];
  let spent = items.reduce((sum, item, l) => sum + item.cost(result[l]!), 0);
  for (;;) {
    let bestLayer = -1;
    let bestGain = 0;
    items.forEach((item, l) => {
      const next = item.widths[item.widths.indexOf(result[l]!) + 1];
      if (next === undefined) return;
      const cost = item.cost(next) - item.cost(result[l]!);
      if (spent + cost > budget) return;
      const gain = (item.damage(result[l]!) - item.damage(next)) / Math.max(cost, 1e-9);
      if (gain > bestGain) {
        bestGain = gain;
        bestLayer = l;
      }
    });
    if (bestLayer < 0) return result;
    const item = items[bestLayer]!;
    const next = item.widths[item.widths.indexOf(result[bestLayer]!) + 1]!;
    spent += item.cost(next) - item.cost(result[bestLayer]!);
    result[bestLayer] = next;
  }
}
