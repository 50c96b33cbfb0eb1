/** Scale refits and coordinate descent on the codes of a block of 16 rows (layout: round.ts). */
import { nearestCode } from './round';

/** Passes of one descent over the codes. */
const SWEEPS: i32 = 4;

/**
 * Alternates `rounds` times the best scale for the codes with descent on the codes, and ends with the best scale.
 * @param h symmetric [n, n]
 * @param hw H w; gradient in and out: H (w - wq); codes, scales in and out
 * @param energies out: (w - wq)^T H (w - wq)
 * @param low, high, levels, count as for `roundBlock`
 */
export function refineBlock(
  n: i32,
  h: usize,
  w: usize,
  scales: usize,
  codes: usize,
  hw: usize,
  gradient: usize,
  energies: usize,
  low: f32,
  high: f32,
  offset: f32,
  levels: usize,
  count: i32,
  rounds: i32,
): void {
  for (let v = 0; v < 4; v++) {
    const from = (<usize>v * <usize>n) << 4;
    const scaleAt = scales + ((<usize>v) << 4);
    for (let round = 0; round < rounds; round++) {
      refitScale(n, codes + from, hw + from, gradient + from, scaleAt, offset);
      descend(n, h, codes + from, gradient + from, v128.load(scaleAt), low, high, levels, count);
    }
    refitScale(n, codes + from, hw + from, gradient + from, scaleAt, offset);
    const scale = v128.load(scaleAt);
    let energy = f32x4.splat(0);
    for (let i = 0; i < n; i++) {
      const at = from + ((<usize>i) << 4);
      const level = f32x4.mul(scale, f32x4.add(v128.load(codes + at), f32x4.splat(offset)));
      energy = f32x4.add(energy, f32x4.mul(f32x4.sub(v128.load(w + at), level), v128.load(gradient + at)));
    }
    v128.store(energies + ((<usize>v) << 4), energy);
  }
}

/** The least-squares scale for fixed codes, w^T H q / q^T H q; moves the gradient to it. */
function refitScale(n: i32, codes: usize, hw: usize, gradient: usize, scaleAt: usize, offset: f32): void {
  const scale = v128.load(scaleAt);
  const zero = f32x4.splat(0);
  let cross = zero;
  let energy = zero;
  const end = (<usize>n) << 4;
  for (let at: usize = 0; at < end; at += 16) {
    const q = f32x4.add(v128.load(codes + at), f32x4.splat(offset));
    const image = v128.load(hw + at);
    cross = f32x4.add(cross, f32x4.mul(q, image));
    energy = f32x4.add(energy, f32x4.mul(q, f32x4.sub(image, v128.load(gradient + at))));
  }
  // H q = (hw - gradient) / scale. A scale of 0 and anything that is not a positive number stay as they are.
  const refit = f32x4.div(f32x4.mul(cross, scale), energy);
  const usable = v128.and(
    v128.and(f32x4.gt(refit, zero), f32x4.lt(refit, f32x4.splat(f32.MAX_VALUE))),
    f32x4.gt(scale, zero),
  );
  v128.store(scaleAt, v128.bitselect(refit, scale, usable));
  const ratio = v128.bitselect(f32x4.div(refit, scale), f32x4.splat(1), usable);
  for (let at: usize = 0; at < end; at += 16) {
    const image = v128.load(hw + at);
    const moved = f32x4.sub(image, f32x4.mul(f32x4.sub(image, v128.load(gradient + at)), ratio));
    v128.store(gradient + at, moved);
  }
}

/** Moves single codes to their best value with the others fixed, until no move helps or a few sweeps are done. */
function descend(
  n: i32,
  h: usize,
  codes: usize,
  gradient: usize,
  scale: v128,
  low: f32,
  high: f32,
  levels: usize,
  count: i32,
): void {
  const live = f32x4.gt(scale, f32x4.splat(0));
  for (let sweep = 0; sweep < SWEEPS; sweep++) {
    let moved = false;
    for (let i = 0; i < n; i++) {
      const row = h + ((<usize>i * <usize>n) << 2);
      const at = (<usize>i) << 4;
      const unit = f32x4.mul(f32x4.splat(load<f32>(row + ((<usize>i) << 2))), scale);
      const code = v128.load(codes + at);
      const wanted = f32x4.add(code, f32x4.div(v128.load(gradient + at), unit));
      const next = v128.bitselect(nearestCode(wanted, low, high, levels, count), code, live);
      const change = f32x4.sub(next, code);
      if (!v128.any_true(f32x4.ne(change, f32x4.splat(0)))) continue;
      v128.store(codes + at, next);
      const delta = f32x4.mul(change, scale);
      let u = row;
      let g = gradient;
      const end = row + ((<usize>n) << 2);
      while (u < end) {
        v128.store(g, f32x4.sub(v128.load(g), f32x4.mul(delta, v128.load32_splat(u))));
        u += 4;
        g += 16;
      }
      moved = true;
    }
    if (!moved) return;
  }
}
