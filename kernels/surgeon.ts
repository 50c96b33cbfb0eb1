/**
 * Removes the weights of a row one after the other, always the one that adds least to (w - w0)^T H (w - w0), and lets the
 * others make up for it (see src/sparse/obs.ts). All arrays are float64.
 * @param a [n, n], inverse of H; its lower triangle is used up, what is above the diagonal is overwritten
 * @param w in: [n], weights, which are used up; h: room for [n]
 * @param index in: [n], 0, 1, ... n - 1, used up
 * @param order out: [n], indices in the order of their removal
 * @param costs out: [n], what each removal added
 */
export function removeWeights(n: i32, a: usize, w: usize, h: usize, index: usize, order: usize, costs: usize): void {
  const stride = (<usize>n) << 3;
  for (let active = n; active > 0; active--) {
    let p = 0;
    let least = f64.MAX_VALUE;
    for (let i = 0; i < active; i++) {
      const weight = load<f64>(w + ((<usize>i) << 3));
      const cost = (weight * weight) / load<f64>(a + <usize>i * stride + ((<usize>i) << 3));
      if (cost >= least) continue;
      least = cost;
      p = i;
    }
    const done = (<usize>(n - active)) << 3;
    const atP = (<usize>p) << 3;
    store<f64>(order + done, load<f64>(index + atP));
    store<f64>(costs + done, least);
    const last = active - 1;
    const atLast = (<usize>last) << 3;
    const rowP = a + <usize>p * stride;
    const rowLast = a + <usize>last * stride;
    const pivot = load<f64>(rowP + atP);
    const step = load<f64>(w + atP) / pivot;
    memory.copy(h, rowP, atP);
    for (let i = p; i < active; i++) store<f64>(h + ((<usize>i) << 3), load<f64>(a + <usize>i * stride + atP));
    // The last index takes the place of p.
    memory.copy(rowP, rowLast, atP);
    for (let i = p + 1; i < last; i++) store<f64>(a + <usize>i * stride + atP, load<f64>(rowLast + ((<usize>i) << 3)));
    store<f64>(rowP + atP, load<f64>(rowLast + atLast));
    store<f64>(h + atP, load<f64>(h + atLast));
    store<f64>(w + atP, load<f64>(w + atLast));
    store<f64>(index + atP, load<f64>(index + atLast));
    for (let i = 0; i < last; i++) {
      const at = (<usize>i) << 3;
      const own = load<f64>(h + at);
      store<f64>(w + at, load<f64>(w + at) - step * own);
      eliminate(a + <usize>i * stride, h, at, own / pivot);
    }
  }
}

/** row -= factor * h up to the element at `end`, by pairs: one element behind it may be changed too. */
function eliminate(row: usize, h: usize, end: usize, factor: f64): void {
  const factors = f64x2.splat(factor);
  let at: usize = 0;
  for (; at + 24 <= end; at += 32) {
    v128.store(row + at, f64x2.sub(v128.load(row + at), f64x2.mul(factors, v128.load(h + at))));
    const next = at + 16;
    v128.store(row + next, f64x2.sub(v128.load(row + next), f64x2.mul(factors, v128.load(h + next))));
  }
  for (; at <= end; at += 16)
    v128.store(row + at, f64x2.sub(v128.load(row + at), f64x2.mul(factors, v128.load(h + at))));
}
