/**
 * Bit allocation: the form of storage of every layer that minimises the summed damage under a budget of code bytes.
 * Dynamic programming along the layers over (choice of the previous layer, budget bucket), then a repair step that spends
 * what the buckets rounded away.
 */
import { FlowCompressError } from '../errors.js';

/** One layer's choices, in which `cost` (bytes) and `damage` are given. */
export interface AllocationItem<Choice> {
  readonly name: string;
  /** The cheapest first: it is the floor. */
  readonly choices: readonly Choice[];
  /** Width of a code. */
  readonly bits: (choice: Choice) => number;
  readonly cost: (choice: Choice) => number;
  readonly damage: (choice: Choice) => number;
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
 * @returns the choice of every item, in order.
 * @throws FlowCompressError `infeasible` when even the floors cost more than the budget; names those that bind.
 */
export function allocateBits<Choice>(items: readonly AllocationItem<Choice>[], options: AllocationOptions): Choice[] {
  if (items.length === 0) return [];
  const minimum = refuseInfeasible(items, options.budget);
  const best = items.map((item) => item.choices.reduce((a, b) => (item.damage(b) <= item.damage(a) ? b : a)));
  const maximum = items.reduce((sum, item, l) => sum + item.cost(best[l]!), 0);
  if (maximum <= options.budget && !options.smoothness) return best;
  const dearest = items.reduce((sum, item) => sum + item.cost(item.choices.at(-1)!), 0);
  const picked = solve(items, Math.min(options.budget, dearest), minimum, options);
  return repair(items, picked, options.budget);
}

/**
 * @returns what the floors cost together
 * @throws FlowCompressError `infeasible` as `allocateBits`
 */
export function refuseInfeasible<Choice>(
  items: readonly Omit<AllocationItem<Choice>, 'damage'>[],
  budget: number,
): number {
  const floorBits = (item: Omit<AllocationItem<Choice>, 'damage'>): number => item.bits(item.choices[0]!);
  const minimum = items.reduce((sum, item) => sum + item.cost(item.choices[0]!), 0);
  if (minimum <= budget) return minimum;
  const binding = items
    .filter((item) => item.floorReason !== undefined)
    .sort((a, b) => b.cost(b.choices[0]!) - a.cost(a.choices[0]!))
    .slice(0, 5)
    .map((item) => `${item.name} >= ${String(floorBits(item))} bits (${item.floorReason ?? ''})`);
  const others = items.filter((item) => item.floorReason === undefined);
  if (others.length > 0) {
    const least = Math.min(...others.map(floorBits));
    binding.push(`${items.length > others.length ? 'all other layers' : 'every layer'} >= ${String(least)} bits`);
  }
  throw new FlowCompressError(
    'infeasible',
    `The budget of ${String(Math.floor(budget))} bytes for weight codes cannot be met: the floors alone need ${String(Math.ceil(minimum))} bytes. Binding floors: ${binding.join('; ')}.`,
    { hint: 'Raise the budget, or lower the floors (--min-bits, --edge-bits, --attention-bits, --gradient-bits).' },
  );
}

function solve<Choice>(
  items: readonly AllocationItem<Choice>[],
  budget: number,
  minimum: number,
  options: AllocationOptions,
): Choice[] {
  const buckets = options.buckets ?? 4096;
  // Only what exceeds every layer's floor is distributed; costs are rounded up to whole buckets.
  const unit = Math.max((budget - minimum) / buckets, 1e-9);
  const extra = items.map((item) =>
    item.choices.map((one) => Math.ceil((item.cost(one) - item.cost(item.choices[0]!)) / unit - 1e-9)),
  );
  const damage = items.map((item) => item.choices.map((one) => item.damage(one)));
  const all = damage.flat();
  const penalty = (options.smoothness ?? 0) * (all.reduce((a, b) => a + b, 0) / all.length);
  const size = buckets + 1;
  // best[k][j]: least damage with the current layer at its k-th choice and j buckets spent.
  let best = items[0]!.choices.map((_, k) => {
    const row = new Float64Array(size).fill(Infinity);
    if (extra[0]![k]! <= buckets) row[extra[0]![k]!] = damage[0]![k]!;
    return row;
  });
  const before: Int8Array[][] = [];
  for (let l = 1; l < items.length; l++) {
    const widths = items[l]!.choices.map(items[l]!.bits);
    const widthsBefore = items[l - 1]!.choices.map(items[l - 1]!.bits);
    const next = widths.map(() => new Float64Array(size).fill(Infinity));
    const from = widths.map(() => new Int8Array(size).fill(-1));
    widths.forEach((width, k) => {
      const shift = extra[l]![k]!;
      const own = damage[l]![k]!;
      widthsBefore.forEach((previous, p) => {
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
    before.push(from);
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
    const previous = before[l - 1]![k]![j]!;
    j -= extra[l]![k]!;
    k = previous;
  }
  return picked.map((index, l) => items[l]!.choices[index]!);
}

/** Changes single layers, best gain per byte first, as long as the exact costs leave room. */
function repair<Choice>(items: readonly AllocationItem<Choice>[], picked: Choice[], budget: number): Choice[] {
  const result = [...picked];
  let spent = items.reduce((sum, item, l) => sum + item.cost(result[l]!), 0);
  for (;;) {
    let best: { layer: number; choice: Choice; cost: number } | undefined;
    let bestGain = 0;
    items.forEach((item, layer) => {
      const now = result[layer]!;
      for (const choice of item.choices) {
        const cost = item.cost(choice) - item.cost(now);
        if (spent + cost > budget) continue;
        const gain = (item.damage(now) - item.damage(choice)) / Math.max(cost, 1e-9);
        if (gain <= bestGain) continue;
        bestGain = gain;
        best = { layer, choice, cost };
      }
    });
    if (!best) return result;
    spent += best.cost;
    result[best.layer] = best.choice;
  }
}
