/** Sensitivity of layers from their information flow (FAAQ), and how well it agrees with what was measured. */

export interface SensitivityInput {
  /** Damped flowMagnitude of the layer. */
  readonly flow: number;
  readonly weightMean: number;
  readonly weightStd: number;
  /** Norm of the loss gradient in the layer's weights, see gradient-norms.ts; absent where there is none. */
  readonly gradient?: number | undefined;
  readonly params: number;
  readonly weightNorm: number;
}

/** `corrected` as docs/methods.md derives it, `reference` as published. */
export type SensitivityMode = 'corrected' | 'reference';
/** `g`: norm of the gradient; `gxw`: times that of the weights, which is the change of the loss under relative noise. */
export type GradientTerm = 'g' | 'gxw';

export interface SensitivityOptions {
  readonly sensitivityMode?: SensitivityMode;
  readonly gradientTerm?: GradientTerm;
}

/**
 * S_l in [0, 1], largest 1.
 *
 * `corrected`: (flow / max flow) * sqrt(1 + mean^2 / std^2) * (0.05 + 0.95 tanh(g / (2 median g))). `reference` keeps the
 * published form, whose ||W|| / std(W) grows with the size of the layer. The factors with g are 1 without a gradient.
 */
export function flowSensitivity(layers: readonly SensitivityInput[], options: SensitivityOptions = {}): number[] {
  const maxFlow = largest(layers.map((l) => l.flow));
  const gradients = gradientTerms(layers, options);
  const known = gradients.filter((g) => g !== undefined);
  const median = medianOf(known);
  const maxGradient = largest(known);
  const raw = layers.map((layer, i) => {
    const flow = layer.flow / maxFlow;
    const g = gradients[i];
    if (options.sensitivityMode === 'reference') {
      const stability = layer.weightNorm / (1e-8 + layer.weightStd);
      const boost = g === undefined ? 1 : 1 / (1 + Math.exp(-5 * g));
      const relative = g === undefined ? 0 : g / maxGradient;
      return flow * stability * boost * (relative > 0.1 ? 1 + 0.5 * relative : 1);
    }
    const spread = layer.weightStd > 0 ? Math.sqrt(1 + (layer.weightMean / layer.weightStd) ** 2) : 1;
    const gradientTerm = g === undefined ? 1 : 0.05 + 0.95 * Math.tanh(g / (2 * median));
    return flow * spread * gradientTerm;
  });
  const peak = largest(raw);
  return raw.map((s) => s / peak);
}

/** Whether the gradient of each layer asks for a floor: above 3 times the median, or above 1 as published. */
export function steepLayers(layers: readonly SensitivityInput[], options: SensitivityOptions = {}): boolean[] {
  const gradients = gradientTerms(layers, options);
  const limit = options.sensitivityMode === 'reference' ? 1 : 3 * medianOf(gradients.filter((g) => g !== undefined));
  return gradients.map((g) => g !== undefined && g > limit);
}

/** Whether the flow of each layer asks for a floor, as published: above half of the largest. */
export function strongLayers(layers: readonly SensitivityInput[]): boolean[] {
  const limit = largest(layers.map((l) => l.flow)) / 2;
  return layers.map((l) => l.flow > limit);
}

function gradientTerms(
  layers: readonly SensitivityInput[],
  { gradientTerm = 'g' }: SensitivityOptions,
): (number | undefined)[] {
  return layers.map(({ gradient, weightNorm }) =>
    gradient === undefined || gradientTerm === 'g' ? gradient : gradient * weightNorm,
  );
}

function largest(values: readonly number[]): number {
  return values.reduce((a, b) => Math.max(a, b), 1e-30);
}

/** The upper one of two middle values. */
function medianOf(values: readonly number[]): number {
  return Math.max(values.toSorted((a, b) => a - b)[values.length >> 1] ?? 0, 1e-30);
}

/** How well the flow sensitivity ranks the layers that were measured. */
export interface Agreement {
  readonly kendallTau: number;
  /** The same without the gradient term; absent where there are no gradients. */
  readonly withoutGradient?: number;
  /** Layers that were compared. */
  readonly layers: number;
}

/**
 * @param measured divergence of each layer at its lowest measured width; layers without one are left out
 * @returns undefined for fewer than three layers
 */
export function agreementWith(
  measured: readonly (number | undefined)[],
  layers: readonly SensitivityInput[],
  options: SensitivityOptions = {},
): Agreement | undefined {
  const compared = layers.flatMap((_, i) => (measured[i] === undefined ? [] : [i]));
  if (compared.length < 3) return undefined;
  const divergences = compared.map((i) => measured[i]!);
  const tau = (inputs: readonly SensitivityInput[]): number => {
    const sensitivity = flowSensitivity(inputs, options);
    return kendallTau(
      compared.map((i) => sensitivity[i]!),
      divergences,
    );
  };
  const withGradients = layers.some(({ gradient }) => gradient !== undefined);
  return {
    kendallTau: tau(layers),
    ...(withGradients && { withoutGradient: tau(layers.map((layer) => ({ ...layer, gradient: undefined }))) }),
    layers: compared.length,
  };
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
