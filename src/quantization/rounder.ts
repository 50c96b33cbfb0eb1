/** Rounds the layers of one model at any width, quickly for planning and thoroughly for the result. */
import type { Gram } from '../flow/gram-probe.js';
import type { Graph } from '../onnx/graph.js';
import { weightMatrix, type WeightLayer } from '../onnx/layers.js';
import type { StorageFormat } from './format.js';
import type { RoundingBasis } from './round.js';
import {
  dequantize,
  layerBases,
  outputEnergy,
  roundLayer,
  roundLayerNearest,
  roundLayerToCodebook,
  type RoundedLayer,
} from './round-layer.js';

/** Factorized Gram matrices kept between calls, in bytes. */
const KEPT_BASES = 512e6;
/** Seven and eight bits leave nothing to compensate. */
export const COMPENSATED_WIDTHS = 6;
/** Above this width the error of uniform codes shrinks by 4 per bit: it is extrapolated, not computed. */
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
    /** Of quick rounding: widths compare well without any, formats need one. */
    private readonly quickRefinements: 0 | 1 = 0,
  ) {}

  /** With a statistically good scale: near enough to the result to compare widths by it. Cached. */
  quick(layer: WeightLayer, format: StorageFormat): RoundedLayer {
    const key = `${layer.name} ${format.kind} ${String(format.bits)}`;
    let result = this.quickResults.get(key);
    if (!result) {
      result = this.round(layer, format, false);
      this.quickResults.set(key, result);
    }
    return result;
  }

  /** Full scale search and refinement. */
  final(layer: WeightLayer, format: StorageFormat): RoundedLayer {
    return this.round(layer, format, true);
  }

  /** Squared error of the layer's output relative to its energy. */
  relativeError(layer: WeightLayer, format: StorageFormat): number {
    const { kind, bits } = format;
    const computed = kind === 'uniform' ? Math.min(bits, LAST_COMPUTED_WIDTH) : bits;
    return this.relativeErrorOf(layer, this.quick(layer, { kind, bits: computed })) * 4 ** (computed - bits);
  }

  /** The same, not relative: without statistics ||Q(W) - W||^2. */
  squaredError(layer: WeightLayer, format: StorageFormat): number {
    return this.relativeError(layer, format) * this.energy(layer);
  }

  relativeErrorOf(layer: WeightLayer, rounded: RoundedLayer): number {
    const energy = this.energy(layer);
    return energy > 0 ? rounded.error / energy : 0;
  }

  private round(layer: WeightLayer, format: StorageFormat, thorough: boolean): RoundedLayer {
    const { kind, bits } = format;
    const weights = weightMatrix(this.graph, layer);
    const bases = this.basesOf(layer);
    // The kernel positions of a ConvTranspose share a scale, which the compensating pass does not know.
    if (!bases || bits > COMPENSATED_WIDTHS || layer.rows !== layer.channels) {
      const rounded =
        kind === 'codebook'
          ? roundLayerToCodebook(layer, weights, bits)
          : roundLayerNearest(layer, weights, bits, thorough);
      return bases ? { ...rounded, error: this.energyOf(layer, difference(layer, weights, rounded)) } : rounded;
    }
    return roundLayer(layer, weights, bases, format, {
      search: thorough ? 'full' : 'one',
      refinements: thorough ? 2 : this.quickRefinements,
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

  /** Energy of the layer's output, or of the matrix itself without statistics. */
  private energyOf(layer: WeightLayer, matrix: Float32Array): number {
    const bases = this.basesOf(layer);
    return bases ? outputEnergy(layer, matrix, bases) : matrix.reduce((sum, v) => sum + v * v, 0);
  }
}

function difference(layer: WeightLayer, weights: Float32Array, rounded: RoundedLayer): Float32Array {
  const levels = dequantize(layer, rounded);
  return weights.map((w, i) => w - levels[i]!);
}
