/** Sensitivity of layers from their information flow (FAAQ), and how well it agrees with what was measured. */

export interface SensitivityInput {
  /** Damped flowMagnitude of the layer. */
  readonly flow: number;
  readonly weightMean: number;
  readonly weightStd: number;
  /** Norm of the loss gradient of the layer's parameters; absent until a gradient was computed. */
  readonly gradient?: number;
  readonly params: number;
  readonly weightNorm: number;
}

export type SensitivityMode = 'corrected' | 'reference';

/**
 * S_l in [0, 1], largest 1.
 *
 * `corrected`: (flow / max flow) * sqrt(1 + mean^2 / std^2) * (0.05 + 0.95 tanh(g / (2 median g))); the last factor is 1
 * without gradients. `reference` keeps the published form, whose ||W|| / std(W) grows with the size of the layer.
 */
export function flowSensitivity(layers: readonly SensitivityInput[], mode: SensitivityMode = 'corrected'): number[] {
  const maxFlow = Math.max(...layers.map((l) => l.flow), 1e-30);
  const gradients = layers.map((l) => l.gradient);
  const known = gradients.filter((g): g is number => g !== undefined).sort((a, b) => a - b);
  const median = known[known.length >> 1] ?? 1;
  const maxGradient = known.at(-1) ?? 1;
  const raw = layers.map((layer) => {
    const flow = layer.flow / maxFlow;
    const g = layer.gradient;
    if (mode === 'reference') {
      const stability = layer.weightNorm / (1e-8 + layer.weightStd);
      const boost = g === undefined ? 1 : 1 / (1 + Math.exp(-5 * g));
      const relative = g === undefined ? 0 : g / maxGradient;
      return flow * stability * boost * (relative > 0.1 ? 1 + 0.5 * relative : 1);
    }
    const spread = layer.weightStd > 0 ? Math.sqrt(1 + (layer.weightMean / layer.weightStd) ** 2) : 1;
    const gradientTerm = g === undefined ? 1 : 0.05 + 0.95 * Math.tanh(g / (2 * Math.max(median, 1e-30)));
    return flow * spread * gradientTerm;
  });
  const peak = Math.max(...raw, 1e-30);
  return raw.map((s) => s / peak);
}

/** Kendall's tau-b of two rankings: 1 same order, -1 opposite, 0 unrelated; 0 when one of them is constant. */
export function kendallTau(a: readonly number[], b: readonly number[]): number {
  let concordant = 0;
  let discordant = 0;
  let tiesA = 0;
  let tiesB = 0;
  for (let i = 0; i < a.length; i++) {
    for (let j = i + 1; j < a.length; j++) {
      const x = Math.sign(a[i]! - a[j]!);
      const y = Math.sign(b[i]! - b[j]!);
      if (x === 0 && y === 0) continue;
      if (x === 0) tiesA++;
      else if (y === 0) tiesB++;
      else if (x === y) concordant++;
      else discordant++;
    }
  }
  const pairs = concordant + discordant;
  const denominator = Math.sqrt((pairs + tiesA) * (pairs + tiesB));
  return denominator > 0 ? (concordant - discordant) / denominator : 0;
}
