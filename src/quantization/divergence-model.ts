/** Divergence of the outputs as a function of one layer's rounding error, fitted through measured points. */

export interface DivergencePoint {
  readonly bits: number;
  /** Relative squared error of the layer's output at that width. */
  readonly error: number;
  readonly divergence: number;
}

/** Divergences below this are indistinguishable from float noise. */
const NOISE = 1e-9;

/**
 * A power law D = a e^p through the measured points. For small errors the divergence is quadratic in the perturbation,
 * hence linear in e (p = 1); the fit keeps p within [0.5, 1.5] to hold against noise.
 */
export class DivergenceModel {
  readonly measured: Readonly<Record<string, number>>;
  readonly atLowestWidth: number;
  private readonly power: number;
  private readonly reference: DivergencePoint;

  constructor(points: readonly DivergencePoint[]) {
    this.measured = Object.fromEntries(points.map((p) => [String(p.bits), p.divergence]));
    this.reference = points[0]!;
    this.atLowestWidth = this.reference.divergence;
    const other = points[1];
    let power = 1;
    if (other && other.error > 0 && other.error < this.reference.error) {
      const slope =
        Math.log(Math.max(this.reference.divergence, NOISE) / Math.max(other.divergence, NOISE)) /
        Math.log(this.reference.error / other.error);
      power = Math.min(1.5, Math.max(0.5, slope));
    }
    this.power = power;
  }

  /** Predicted divergence at a relative output error. */
  at(error: number): number {
    if (this.reference.error <= 0) return 0;
    return Math.max(this.reference.divergence, NOISE) * (error / this.reference.error) ** this.power;
  }
}
