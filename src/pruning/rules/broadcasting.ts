/** Operands that are repeated to the shape of a result, as element-wise operators do it. */
import type { Axis, Ties } from '../ties.js';

/**
 * Ties the axes of operands to those of the result that they are aligned with at the end; an axis of length 1 that is
 * repeated is free. The result is 0 where `any` or `all` operands are, nowhere with `none`.
 */
export function followBroadcast(
  ties: Ties,
  operands: readonly (readonly Axis[])[],
  result: readonly Axis[],
  zeros: 'any' | 'all' | 'none',
): void {
  for (const [at, axis] of result.entries()) {
    const aligned = operands.map((axes) => axes[at - result.length + axes.length] as Axis | undefined);
    for (const own of aligned) {
      if (!own) continue;
      if (own.size === axis.size) ties.tieAll(own, axis);
      else ties.free(own);
    }
    ties.free(axis);
    for (let i = 0; i < axis.size; i++) {
      const isZero = (own: Axis | undefined): boolean => own !== undefined && ties.isZero(own, i);
      ties.setZero(axis, i, zeros === 'any' ? aligned.some(isZero) : zeros === 'all' && aligned.every(isZero));
    }
  }
}
