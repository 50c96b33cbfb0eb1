/** Rounds the layers of one model at any width, quickly for planning and thoroughly for the result. */
import type { Gram } from '../flow/gram-probe.js';
import type { Graph } from '../onnx/graph.js';
import { weightMatrix, type WeightLayer } from '../onnx/layers.js';
import type { RoundingBasis } from './round.js';
import { quadraticForm } from '../linalg/quadratic-form.js';
import { dequantize, layerBases, roundLayer, roundLayerNearest, type RoundedLayer } from './round-layer.js';

/** Factorized Gram matrices kept between calls, in bytes. */
const KEPT_BASES = 512e6;
/** Above this width the error shrinks by 4 per bit: it is extrapolated, not computed. */
const LAST_COMPUTED_WIDTH = 4;

export class LayerRounder {
  private readonly bases = new Map<string, RoundingBasis[]>();
  private keptBytes = 0;
  private readonly quickResults = new Map<string, RoundedLayer>();
  private readonly energies = new Map<string, number>();

  constructor(
    private readonly graph: Graph,
    private readonly grams: ReadonlyMap<string, Gram>,
    private readonly rounding: 'nearest' | 'compensated',
  ) {}

  /** One pass with a statistically good scale; cached. */
  quick(layer: WeightLayer, bits: number): RoundedLayer {
    const key = `${layer.name} ${String(bits)}`;
    let result = this.quickResults.get(key);
    if (!result) {
      result = this.round(layer, bits, false);
      this.quickResults.set(key, result);
    }
    return result;
  }

  /** Full scale search and refinement. */
  final(layer: WeightLayer, bits: number): RoundedLayer {
    return this.round(layer, bits, true);
  }

  /** Squared error of the layer's output relative to its energy, at a width. */
  relativeError(layer: WeightLayer, bits: number): number {
    const computed = Math.min(bits, LAST_COMPUTED_WIDTH);
    return this.relativeErrorOf(layer, this.quick(layer, computed)) * 4 ** (computed - bits);
  }

  relativeErrorOf(layer: WeightLayer, rounded: RoundedLayer): number {
    const energy = this.energy(layer);
    return energy > 0 ? rounded.error / energy : 0;
  }

  private round(layer: WeightLayer, bits: number, thorough: boolean): RoundedLayer {
    const weights = weightMatrix(this.graph, layer);
    const bases = this.basesOf(layer);
    // Seven and eight bits leave nothing to compensate.
    // The kernel positions of a ConvTranspose share a scale, which the compensating pass does not know.
    if (!bases || bits >= 7 || layer.rows !== layer.channels) {
      const rounded = roundLayerNearest(layer, weights, bits, thorough);
      return bases ? { ...rounded, error: this.energyOf(layer, difference(layer, weights, rounded)) } : rounded;
    }
    return roundLayer(layer, weights, bases, bits, {
      search: thorough ? 'full' : 'one',
      refinements: thorough ? 2 : 0,
    });
  }

  private basesOf(layer: WeightLayer): readonly RoundingBasis[] | undefined {
    if (this.rounding === 'nearest') return undefined;
    const kept = this.bases.get(layer.name);
    if (kept) return kept;
    const gram = this.grams.get(layer.name);
    if (!gram) return undefined;
    const bases = layerBases(gram);
    const bytes = gram.data.length * 8;
    if (this.keptBytes + bytes <= KEPT_BASES) {
      this.bases.set(layer.name, bases);
      this.keptBytes += bytes;
    }
    return bases;
  }

  private energy(layer: WeightLayer): number {
    let energy = this.energies.get(layer.name);
    if (energy === undefined) {
      energy = this.energyOf(layer, weightMatrix(this.graph, layer));
      this.energies.set(layer.name, energy);
    }
    return energy;
  }

  /** sum over rows of m G m^T, or of m m^T without statistics. */
  private energyOf(layer: WeightLayer, matrix: Float32Array): number {
    const { rows, cols, groups } = layer;
    const gram = this.rounding === 'compensated' ? this.grams.get(layer.name) : undefined;
    let total = 0;
    if (!gram) {
      for (const v of matrix) total += v * v;
      return total;
    }
    const rowsPerGroup = rows / groups;
    for (let group = 0; group < groups; group++) {
      const block = gram.data.subarray(group * cols * cols, (group + 1) * cols * cols);
      const part = matrix.subarray(group * rowsPerGroup * cols, (group + 1) * rowsPerGroup * cols);
      total += quadraticForm(block, cols, part);
    }
    return total;
  }
}

function difference(layer: WeightLayer, weights: Float32Array, rounded: RoundedLayer): Float32Array {
  const levels = dequantize(layer, rounded);
  return weights.map((w, i) => w - levels[i]!);
}
