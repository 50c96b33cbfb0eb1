/** Energies of many rows under one symmetric matrix. */

/**
 * sum over rows x of x^T G x. Four rows share every load of G, and only its upper triangle is read.
 * @param g symmetric [n, n], row-major
 * @param rows [count, n], row-major
 */
export function quadraticForm(g: Float64Array, n: number, rows: Float32Array): number {
  const count = rows.length / n;
  let total = 0;
  for (let first = 0; first < count; first += 4) {
    const used = Math.min(4, count - first);
    // Rows that are not there repeat the first one and are not counted.
    const at = [0, 1, 2, 3].map((r) => (first + (r < used ? r : 0)) * n) as [number, number, number, number];
    const [r0, r1, r2, r3] = at;
    const sums = [0, 0, 0, 0];
    for (let i = 0; i < n; i++) {
      const row = i * n;
      let a0 = 0;
      let a1 = 0;
      let a2 = 0;
      let a3 = 0;
      for (let j = i + 1; j < n; j++) {
        const v = g[row + j]!;
        a0 += rows[r0 + j]! * v;
        a1 += rows[r1 + j]! * v;
        a2 += rows[r2 + j]! * v;
        a3 += rows[r3 + j]! * v;
      }
      const d = g[row + i]!;
      sums[0]! += rows[r0 + i]! * (2 * a0 + d * rows[r0 + i]!);
      sums[1]! += rows[r1 + i]! * (2 * a1 + d * rows[r1 + i]!);
      sums[2]! += rows[r2 + i]! * (2 * a2 + d * rows[r2 + i]!);
      sums[3]! += rows[r3 + i]! * (2 * a3 + d * rows[r3 + i]!);
    }
    for (let r = 0; r < used; r++) total += sums[r]!;
  }
  return total;
}
