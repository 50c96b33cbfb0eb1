/** Axes as operators name them. */

/** Counted from the front: -1 is the last axis. Positions along an axis of `rank` elements are named in the same way. */
export function axisFromStart(axis: number, rank: number): number {
  return axis < 0 ? axis + rank : axis;
}
