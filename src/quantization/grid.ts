/** Integer grids that weights are rounded to. */

/** Levels scale * (code + offset) with integer codes low..high. */
export interface Grid {
  readonly bits: number;
  readonly low: number;
  readonly high: number;
  /** 0: zero is a level. 0.5: levels lie symmetrically around zero (..., -0.5, 0.5, ...), better at 1 to 3 bits. */
  readonly offset: 0 | 0.5;
}

/** Grid of 2^bits levels; with offset 0 the lowest code -2^(bits-1) is used below 8 bits only. */
export function gridOf(bits: number, offset: 0 | 0.5): Grid {
  const half = 2 ** (bits - 1);
  return { bits, low: bits === 8 ? -127 : -half, high: half - 1, offset };
}
