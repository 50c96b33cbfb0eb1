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
): void {
  const stride = (<usize>n) << 4;
  const zero = f32x4.splat(0);
  for (let v = 0; v < 4; v++) v128.store(energies + ((<usize>v) << 4), zero);
  for (let k = n - 1; k >= 0; k--) {
    const row = upper + ((<usize>k * <usize>n) << 2);
    let a0 = zero;
    let a1 = zero;
    let a2 = zero;
    let a3 = zero;
    let u = row + ((<usize>k + 1) << 2);
    let e = errors + ((<usize>k + 1) << 4);
    const end = row + ((<usize>n) << 2);
    while (u < end) {
      const factor = v128.load32_splat(u);
      a0 = f32x4.add(a0, f32x4.mul(factor, v128.load(e)));
      a1 = f32x4.add(a1, f32x4.mul(factor, v128.load(e + stride)));
      a2 = f32x4.add(a2, f32x4.mul(factor, v128.load(e + 2 * stride)));
      a3 = f32x4.add(a3, f32x4.mul(factor, v128.load(e + 3 * stride)));
      u += 4;
      e += 16;
    }
    const diagonal = f32x4.splat(load<f32>(row + ((<usize>k) << 2)));
    for (let v = 0; v < 4; v++) {
      const carried = v == 0 ? a0 : v == 1 ? a1 : v == 2 ? a2 : a3;
      const at = <usize>v * stride + ((<usize>k) << 4);
      const scale = v128.load(scales + ((<usize>v) << 4));
      const weight = v128.load(w + at);
      const target = f32x4.add(weight, f32x4.div(carried, diagonal));
      const code = nearestCode(f32x4.div(target, scale), scale, low, high, offset);
      v128.store(codes + at, code);
      const error = f32x4.sub(weight, f32x4.mul(scale, f32x4.add(code, f32x4.splat(offset))));
      v128.store(errors + at, error);
      const residual = f32x4.add(carried, f32x4.mul(error, diagonal));
      const energy = energies + ((<usize>v) << 4);
      v128.store(energy, f32x4.add(v128.load(energy), f32x4.mul(residual, residual)));
    }
  }
}

/** Codes of x (weights in units of the scale), halves to even; 0 where the scale is 0. */
function nearestCode(x: v128, scale: v128, low: f32, high: f32, offset: f32): v128 {
  const code = f32x4.nearest(f32x4.sub(x, f32x4.splat(offset)));
  const clamped = f32x4.pmax(f32x4.splat(low), f32x4.pmin(f32x4.splat(high), code));
  return v128.and(clamped, f32x4.gt(scale, f32x4.splat(0)));
}

/** out = H x for a symmetric H [n, n] and the rows x of a block. */
export function symmetricProduct(n: i32, h: usize, x: usize, out: usize): void {
  const stride = (<usize>n) << 4;
  for (let i = 0; i < n; i++) {
    let u = h + ((<usize>i * <usize>n) << 2);
    const end = u + ((<usize>n) << 2);
    let a0 = f32x4.splat(0);
    let a1 = a0;
    let a2 = a0;
    let a3 = a0;
    let e = x;
    while (u < end) {
      const factor = v128.load32_splat(u);
      a0 = f32x4.add(a0, f32x4.mul(factor, v128.load(e)));
      a1 = f32x4.add(a1, f32x4.mul(factor, v128.load(e + stride)));
      a2 = f32x4.add(a2, f32x4.mul(factor, v128.load(e + 2 * stride)));
      a3 = f32x4.add(a3, f32x4.mul(factor, v128.load(e + 3 * stride)));
      u += 4;
      e += 16;
    }
    const at = out + ((<usize>i) << 4);
    v128.store(at, a0);
    v128.store(at + stride, a1);
    v128.store(at + 2 * stride, a2);
    v128.store(at + 3 * stride, a3);
  }
}
