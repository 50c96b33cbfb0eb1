/** Cholesky factorization in place, in double precision. */

/**
 * A = L L^T: the lower triangle of `a` [n, n] becomes L; what lies above the diagonal is not touched.
 * @returns -1, or the first column whose pivot is not positive
 */
export function choleskyFactor(n: i32, a: usize): i32 {
  const width = (<usize>n) << 3;
  for (let i = 0; i < n; i++) {
    const row = a + <usize>i * width;
    let j = 0;
    // Four columns at a time share the loads of the row.
    for (; j + 4 <= i; j += 4) {
      const c0 = a + <usize>j * width;
      const c1 = c0 + width;
      const c2 = c1 + width;
      const c3 = c2 + width;
      let s0 = f64x2.splat(0);
      let s1 = s0;
      let s2 = s0;
      let s3 = s0;
      const end = (<usize>j) << 3;
      for (let k: usize = 0; k < end; k += 16) {
        const x = v128.load(row + k);
        s0 = f64x2.add(s0, f64x2.mul(x, v128.load(c0 + k)));
        s1 = f64x2.add(s1, f64x2.mul(x, v128.load(c1 + k)));
        s2 = f64x2.add(s2, f64x2.mul(x, v128.load(c2 + k)));
        s3 = f64x2.add(s3, f64x2.mul(x, v128.load(c3 + k)));
      }
      const at = row + end;
      const x0 = (load<f64>(at) - total(s0)) / load<f64>(c0 + end);
      const x1 = (load<f64>(at + 8) - total(s1) - x0 * load<f64>(c1 + end)) / load<f64>(c1 + end + 8);
      const x2 =
        (load<f64>(at + 16) - total(s2) - x0 * load<f64>(c2 + end) - x1 * load<f64>(c2 + end + 8)) /
        load<f64>(c2 + end + 16);
      const x3 =
        (load<f64>(at + 24) -
          total(s3) -
          x0 * load<f64>(c3 + end) -
          x1 * load<f64>(c3 + end + 8) -
          x2 * load<f64>(c3 + end + 16)) /
        load<f64>(c3 + end + 24);
      store<f64>(at, x0);
      store<f64>(at + 8, x1);
      store<f64>(at + 16, x2);
      store<f64>(at + 24, x3);
    }
    for (; j < i; j++) {
      const column = a + <usize>j * width;
      const rest = load<f64>(row + ((<usize>j) << 3)) - dot(row, column, j);
      store<f64>(row + ((<usize>j) << 3), rest / load<f64>(column + ((<usize>j) << 3)));
    }
    const pivot = load<f64>(row + ((<usize>i) << 3)) - dot(row, row, i);
    if (!(pivot > 0)) return i;
    store<f64>(row + ((<usize>i) << 3), Math.sqrt(pivot));
  }
  return -1;
}

function total(pair: v128): f64 {
  return f64x2.extract_lane(pair, 0) + f64x2.extract_lane(pair, 1);
}

/** Sum of the products of the first n elements. */
function dot(x: usize, y: usize, n: i32): f64 {
  let sum = f64x2.splat(0);
  const pairs = ((<usize>n) >> 1) << 4;
  for (let k: usize = 0; k < pairs; k += 16) sum = f64x2.add(sum, f64x2.mul(v128.load(x + k), v128.load(y + k)));
  let rest: f64 = 0;
  if (n & 1) rest = load<f64>(x + pairs) * load<f64>(y + pairs);
  return total(sum) + rest;
}
