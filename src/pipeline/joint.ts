/**
 * How much is cut where bytes may come from cuts and from rounding alike: as much as leaves the least loss of both together, which is
 * where one byte less by a further cut begins to do more harm than by fewer bits.
 */
import type { PlanPoint } from '../pruning/plan.js';

/** The original with its weights rounded to an average width. */
export interface RoundedPoint {
  readonly bits: number;
  readonly bytes: number;
  /** From the original. */
  readonly divergence: number;
}

/**
 * The cost at which to stop. Cut weights need no bits, so that the others have more of them for the same file; rounding is taken to
 * harm what is left as it harms the whole.
 * @param points of a plan of cuts, in parameters; the first takes nothing
 * @param rounded at two widths at least
 * @param bytes that the file may have
 */
export function jointCost(points: readonly PlanPoint[], rounded: readonly RoundedPoint[], bytes: number): number {
  const whole = points[0]!.cost;
  const bitsAt = bitsThatFit(rounded, bytes);
  const harm = divergenceBetween(rounded);
  let best = { loss: Infinity, cost: whole };
  let least = whole;
  for (const { cost, damage } of points) {
    least = Math.min(least, cost);
    const loss = damage + harm(bitsAt(cost / whole));
    if (loss < best.loss) best = { loss, cost };
  }
  // Where no cut leaves enough bits, the deepest comes nearest.
  return best.loss === Infinity ? least : best.cost;
}

/** Average width that a share of the parameters may have: what is beside the codes stays. */
function bitsThatFit(rounded: readonly RoundedPoint[], bytes: number): (share: number) => number {
  const sorted = [...rounded].sort((a, b) => a.bits - b.bits);
  const [narrow, wide] = [sorted[0]!, sorted.at(-1)!];
  const bytesPerBit = (wide.bytes - narrow.bytes) / (wide.bits - narrow.bits);
  const beside = narrow.bytes - narrow.bits * bytesPerBit;
  return (share) => (bytes - beside) / (share * bytesPerBit);
}

/** Straight lines of its logarithm through what was measured; more bits than that harm no less, fewer are not possible. */
function divergenceBetween(rounded: readonly RoundedPoint[]): (bits: number) => number {
  const sorted = [...rounded].sort((a, b) => a.bits - b.bits);
  const logOf = ({ divergence }: RoundedPoint): number => Math.log(Math.max(divergence, LEAST));
  return (bits) => {
    if (bits < sorted[0]!.bits) return Infinity;
    const at = sorted.findIndex((point) => point.bits >= bits);
    if (at < 0) return sorted.at(-1)!.divergence;
    if (at === 0) return sorted[0]!.divergence;
    const [lower, upper] = [sorted[at - 1]!, sorted[at]!];
    const part = (bits - lower.bits) / (upper.bits - lower.bits);
    return Math.exp((1 - part) * logOf(lower) + part * logOf(upper));
  };
}
const LEAST = 1e-9;
