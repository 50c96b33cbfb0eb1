/** The levels that weights are rounded to: a grid of integers, or a codebook of chosen ones. */

/** Levels scale * (code + offset) with integer codes low..high, or of these only the ones in a codebook. */
export interface Grid {
  /** Stored width of a code. */
  readonly bits: number;
  readonly low: number;
  readonly high: number;
  /** 0: zero is a level. 0.5: levels lie symmetrically around zero (..., -0.5, 0.5, ...), better at 1 to 3 bits. */
  readonly offset: 0 | 0.5;
  /** A codebook: the codes that may be taken, ascending, 2^bits of them at most. What is stored of a code is its place here. */
  readonly levels?: Int8Array;
}

/** Grid of 2^bits levels; with offset 0 the lowest code -2^(bits-1) is used below 8 bits only. */
export function gridOf(bits: number, offset: 0 | 0.5): Grid {
  const half = 2 ** (bits - 1);
  return { bits, low: bits === 8 ? -127 : -half, high: half - 1, offset };
}

/** @param levels ascending, 1 to 2^bits of them */
export function codebookGrid(bits: number, levels: Int8Array): Grid {
  return { bits, low: levels[0]!, high: levels.at(-1)!, offset: 0, levels };
}

/** Nearest integer, halves to the even neighbour: the rounding of ONNX QuantizeLinear. */
export function roundHalfEven(x: number): number {
  const r = Math.round(x);
  return r - x === 0.5 && r % 2 !== 0 ? r - 1 : r;
}

/** The code nearest to a number in units of the scale; midway between two levels of a codebook the lower one. */
export function nearestCode(x: number, { low, high, offset, levels }: Grid): number {
  if (!levels) return Math.min(high, Math.max(low, roundHalfEven(x - offset)));
  return levels[placeIn(levels, x)]!;
}

/** Place of the level nearest to x among ascending levels, the lower one midway between two. */
export function placeIn(levels: ArrayLike<number>, x: number): number {
  let [from, to] = [0, levels.length - 1];
  while (from < to) {
    const middle = (from + to) >> 1;
    if (x > (levels[middle]! + levels[middle + 1]!) / 2) from = middle + 1;
    else to = middle;
  }
  return from;
}
