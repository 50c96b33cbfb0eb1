/** What a unit is worth, by many measures, looked up by name. */
import type { RandomStream } from '../data/random.js';
import type { Gram } from '../flow/gram-probe.js';
import { ordinaryLoss, type GradientPass } from '../quantization/risk-gradients.js';
import type { LayerUnits } from './layer-units.js';

/** One layer, as a score sees it. */
export interface ScoredLayer {
  readonly units: LayerUnits;
  /** Row-major [rows, cols]. */
  readonly weights: Float32Array;
  /** Second moments of the layer's input; absent where they are not gathered. */
  readonly gram: Gram | undefined;
  /** Root mean square over CALIB of what each output channel gives behind its activation, as its readers see it; 1 where none tells. */
  readonly strength: Float64Array;
  /** Magnitude of the normalization's scale by output channel, NaN where there is none; absent unless the score asks for it. */
  readonly normScale?: Float64Array | undefined;
  readonly random: RandomStream;
}

/** Scores of single channels. */
interface ChannelScore {
  readonly kind: 'channels';
  readonly summary: string;
  /** Whether channels are judged by the layer that makes them or by the layers that read them. */
  readonly side: 'made' | 'read';
  /** One number per channel of that side, small for what is worth little; undefined where a layer cannot tell. */
  readonly of: (layer: ScoredLayer) => Float64Array | undefined;
  /** Whether values compare across layers as they are, and are not counted in the mean of their layer. */
  readonly absolute?: boolean;
  /** Whether `of` looks at what CALIB makes of the activations: `gram`, `strength`. */
  readonly activations?: boolean;
}

/** Scores from the gradients of a loss, summed over all weights and biases that make a unit: see gradient-scores.ts. */
export interface GradientScore {
  readonly kind: 'gradients';
  readonly summary: string;
  readonly loss: GradientPass['kindOf'];
  /** Samples per gradient. */
  readonly batchSize: number;
  /** What a weight adds: its product with its derivative, or the square of that. */
  readonly ofWeight: 'product' | 'square';
  /** Of the sum over a unit, for a batch of so many samples; averaged over batches. */
  readonly ofUnit: (sum: number, samples: number) => number;
}

/** Channels go one after another, each judged by what goes with it from those that are left: see elimination.ts. */
interface EliminationScore {
  readonly kind: 'elimination';
  readonly summary: string;
}

export type PruningScore = ChannelScore | EliminationScore | GradientScore;

export const SCORE_NAMES = [
  'obs',
  'flow',
  'flow-out',
  'l1',
  'l2',
  'fpgm',
  'bn-scale',
  'taylor',
  'fisher',
  'random',
] as const;
export type ScoreName = (typeof SCORE_NAMES)[number];

/** Per output channel, a measure of its rows of the weight matrix. */
function perRow({ units: { layer }, weights }: ScoredLayer, measure: (row: Float32Array) => number): Float64Array {
  const size = weights.length / layer.channels;
  return Float64Array.from({ length: layer.channels }, (_, c) => measure(weights.subarray(c * size, (c + 1) * size)));
}

const norm = (row: Float32Array): number => Math.sqrt(row.reduce((sum, v) => sum + v * v, 0));

/** Does not change when a positive scale moves between consecutive layers. */
export const FLOW_OUT: ChannelScore = {
  kind: 'channels',
  side: 'read',
  summary: 'flow into the readers: rms of the activation times the norm of the weights that read it',
  activations: true,
  of: flowIntoReader,
};

const SCORES: Record<ScoreName, PruningScore> = {
  obs: {
    kind: 'elimination',
    summary: 'what the readers lose after least squares on the channels that are left (Optimal Brain Surgeon)',
  },
  flow: {
    kind: 'channels',
    side: 'made',
    summary: 'flow divergence: rms of the activation times the norm of the filter',
    activations: true,
    of: (layer) => perRow(layer, norm).map((size, c) => size * layer.strength[c]!),
  },
  'flow-out': FLOW_OUT,
  l1: {
    kind: 'channels',
    side: 'made',
    summary: 'sum of the absolute weights of the filter',
    of: (layer) => perRow(layer, (row) => row.reduce((sum, v) => sum + Math.abs(v), 0)),
  },
  l2: { kind: 'channels', side: 'made', summary: 'norm of the filter', of: (layer) => perRow(layer, norm) },
  // Those near the middle can be made up for (He et al. 2019).
  fpgm: {
    kind: 'channels',
    side: 'made',
    summary: 'distance of the filter to all others of the layer (FPGM)',
    of: distanceToOthers,
  },
  'bn-scale': {
    kind: 'channels',
    side: 'made',
    summary: 'magnitude of the scale of the batch normalization',
    of: ({ normScale }) => normScale,
    absolute: true,
  },
  taylor: {
    kind: 'gradients',
    summary: 'first-order change of the loss without the filter (Taylor expansion)',
    ...{ loss: ordinaryLoss, batchSize: 32, ofWeight: 'product' },
    ofUnit: (sum) => sum ** 2,
  },
  // With labels drawn from the model, gradients of different samples are uncorrelated: the square of their mean over n samples is 1/n
  // of the mean of their squares.
  fisher: {
    kind: 'gradients',
    summary: 'second-order change of the answers without the filter (diagonal of the Fisher information)',
    ...{ loss: ({ scores }) => ordinaryLoss({ scores, labels: false }), batchSize: 8, ofWeight: 'square' },
    ofUnit: (sum, samples) => (samples * sum) / 2,
  },
  random: {
    kind: 'channels',
    side: 'made',
    summary: 'a random number',
    of: ({ units: { layer }, random }) => Float64Array.from({ length: layer.channels }, () => random.float()),
  },
};

/** Whether the score needs the second moments of what layers read. */
export function readsActivations(score: PruningScore): boolean {
  return score.kind === 'elimination' || (score.kind === 'channels' && score.activations === true);
}

export function pruningScore(name: ScoreName): PruningScore {
  return SCORES[name];
}

function flowIntoReader({ units: { layer, read, taps }, weights, gram }: ScoredLayer): Float64Array | undefined {
  if (!gram || !read) return undefined;
  const flows = new Float64Array(read.length);
  for (let c = 0; c < read.length; c++) {
    let [energy, square] = [0, 0];
    for (let t = c * taps; t < (c + 1) * taps; t++) {
      energy += gram.data[t * gram.cols + t]! / taps;
      for (let row = 0; row < layer.rows; row++) square += weights[row * layer.cols + t]! ** 2;
    }
    flows[c] = Math.sqrt(energy * square);
  }
  return flows;
}

function distanceToOthers({ units: { layer }, weights }: ScoredLayer): Float64Array {
  const size = weights.length / layer.channels;
  const distance = (a: number, b: number): number => {
    let sum = 0;
    for (let i = 0; i < size; i++) sum += (weights[a * size + i]! - weights[b * size + i]!) ** 2;
    return Math.sqrt(sum);
  };
  return Float64Array.from({ length: layer.channels }, (_, c) => {
    let sum = 0;
    for (let other = 0; other < layer.channels; other++) sum += distance(c, other);
    return sum;
  });
}

/**
 * Score by class: the mean over all layers that make (or read) it of the layer's score, in units of the layer's own mean unless it is
 * absolute, so that layers of all sizes can be ranked together. Where no layer tells it is 1, or NaN for an absolute score.
 */
export function unitScores(
  { side, of, absolute = false }: ChannelScore,
  layers: readonly ScoredLayer[],
  classes: number,
): Float64Array {
  const sums = new Float64Array(classes);
  const counts = new Float64Array(classes);
  for (const layer of layers) {
    const own = side === 'made' ? layer.units.made : layer.units.read;
    const values = own && of(layer);
    if (!values) continue;
    const mean = absolute ? 1 : values.reduce((a, b) => a + b, 0) / values.length;
    own.forEach((unit, c) => {
      if (unit < 0 || Number.isNaN(values[c])) return;
      sums[unit]! += values[c]! / (mean > 0 ? mean : 1);
      counts[unit]!++;
    });
  }
  return sums.map((sum, unit) => (counts[unit]! > 0 ? sum / counts[unit]! : absolute ? NaN : 1));
}
