/**
 * Blocks of 16 rows, four vectors of four lanes. An array of n elements per row is stored vector by vector:
 * [4 vectors][n][4 lanes] float32; one value per row is [16] float32.
 */

/**
 * Error-compensating rounding, last column first (see src/quantization/round.ts).
 * @param upper [n, n], L^T
 * @param w in: weights; scales in: [16]
 * @param codes out: integers as float32; errors out: w - scale * (code + offset)
 * @param energies out: [16], ||L^T (w - wq)||^2
 * @param low, high codes between which any integer may be taken, where `levels` is 0
 * @param levels the codes that may be taken, with their midpoints (see nearestOf); their number is `count`
 */
export function roundBlock(
  n: i32,
  upper: usize,
  w: usize,
  scales: usize,
  codes: usize,
  errors: usize,
  energies: usize,
  low: f32,
  high: f32,
  offset: f32,
  levels: usize,
  count: i32,
): void {
  const stride = (<usize>n) << 4;
  const zero = f32x4.splat(0);
  for (let v = 0; v < 4; v++) v128.store(energies + ((<usize>v) << 4), zero);
  for (let k = n - 1; k >= 0; k--) {
    const row = upper + ((<usize>k * <usize>n) << 2);
    // What the errors already made carry over is put where this column's own error goes.
    const after = <usize>k + 1;
    rowProduct(row + (after << 2), row + ((<usize>n) << 2), errors + (after << 4), stride, errors + ((<usize>k) << 4));
    const diagonal = f32x4.splat(load<f32>(row + ((<usize>k) << 2)));
    for (let v = 0; v < 4; v++) {
      const at = <usize>v * stride + ((<usize>k) << 4);
      const carried = v128.load(errors + at);
      const scale = v128.load(scales + ((<usize>v) << 4));
      const weight = v128.load(w + at);
      const target = f32x4.add(weight, f32x4.div(carried, diagonal));
      const wanted = f32x4.sub(f32x4.div(target, scale), f32x4.splat(offset));
      const nearest = nearestCode(wanted, low, high, levels, count);
      // 0 where the scale is 0.
      const code = v128.and(nearest, f32x4.gt(scale, zero));
      v128.store(codes + at, code);
      const error = f32x4.sub(weight, f32x4.mul(scale, f32x4.add(code, f32x4.splat(offset))));
      v128.store(errors + at, error);
      const residual = f32x4.add(carried, f32x4.mul(error, diagonal));
      const energy = energies + ((<usize>v) << 4);
      v128.store(energy, f32x4.add(v128.load(energy), f32x4.mul(residual, residual)));
    }
  }
}

/** The code nearest to x, halves to even where any integer from low to high will do. */
export function nearestCode(x: v128, low: f32, high: f32, levels: usize, count: i32): v128 {
  return count > 0
    ? nearestOf(x, levels, count)
    : f32x4.pmax(f32x4.splat(low), f32x4.pmin(f32x4.splat(high), f32x4.nearest(x)));
}

/** @param levels [count] float32, ascending; behind them, [count - 1], what lies midway between neighbours and goes to the lower one */
function nearestOf(x: v128, levels: usize, count: i32): v128 {
  const midpoints = levels + ((<usize>count) << 2);
  let nearest = v128.load32_splat(levels);
  for (let k: usize = 1; k < <usize>count; k++) {
    const above = f32x4.gt(x, v128.load32_splat(midpoints + ((k - 1) << 2)));
    nearest = v128.bitselect(v128.load32_splat(levels + (k << 2)), nearest, above);
  }
  return nearest;
}

/** out = H x for a symmetric H [n, n] and the rows x of a block. */
export function symmetricProduct(n: i32, h: usize, x: usize, out: usize): void {
  const width = (<usize>n) << 2;
  const stride = (<usize>n) << 4;
  for (let i = 0; i < n; i++) {
    const row = h + <usize>i * width;
    rowProduct(row, row + width, x, stride, out + ((<usize>i) << 4));
  }
}

/**
 * Sums factor times element over the factors from `factors` to `end`, for every row of a block.
 * @param elements those of the first vector that meet the factors; the other vectors follow at `stride`
 * @param out where the sums of the first vector go; the others at `stride`
 */
function rowProduct(factors: usize, end: usize, elements: usize, stride: usize, out: usize): void {
  let a0 = f32x4.splat(0);
  let a1 = a0;
  let a2 = a0;
  let a3 = a0;
  while (factors < end) {
    const factor = v128.load32_splat(factors);
    a0 = f32x4.add(a0, f32x4.mul(factor, v128.load(elements)));
    a1 = f32x4.add(a1, f32x4.mul(factor, v128.load(elements + stride)));
    a2 = f32x4.add(a2, f32x4.mul(factor, v128.load(elements + 2 * stride)));
    a3 = f32x4.add(a3, f32x4.mul(factor, v128.load(elements + 3 * stride)));
    factors += 4;
    elements += 16;
  }
  v128.store(out, a0);
  v128.store(out + stride, a1);
  v128.store(out + 2 * stride, a2);
  v128.store(out + 3 * stride, a3);
}
