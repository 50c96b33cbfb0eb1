/** The order in which the units of every group would go, by a score. */
import { randomStream, seedOf } from '../data/random.js';
import type { Gram } from '../flow/gram-probe.js';
import type { Graph } from '../onnx/graph.js';
import { weightMatrix } from '../onnx/layers.js';
import { canEliminate, eliminationOrder, type Reader } from './elimination.js';
import type { Dependencies, DependencyGroup } from './groups.js';
import type { LayerUnits } from './layer-units.js';
import { FLOW_OUT, pruningScore, unitScores, type PruningScore, type ScoredLayer, type ScoreName } from './scores.js';

export interface OrderRequest {
  readonly graph: Graph;
  readonly dependencies: Dependencies;
  readonly layers: readonly LayerUnits[];
  /** By layer name. */
  readonly grams: ReadonlyMap<string, Gram>;
  readonly score: ScoreName;
  /** What goes first: what is worth least, or, as a check of the score, most. */
  readonly order: Order;
  readonly seed: number;
  /** By layer name and channel, for the score of normalization scales. */
  readonly normScales?: ReadonlyMap<string, Float64Array> | undefined;
  /** By class, for scores from gradients. */
  readonly measured?: Float64Array | undefined;
}

export const ORDERS = ['lowest', 'highest'] as const;
export type Order = (typeof ORDERS)[number];

export interface RemovalOrder {
  /** Classes of the group, the first to go first. */
  readonly units: readonly number[];
  /** What each is worth, comparable over all groups, never falling (negative where the highest go first); absent for scores that only order. */
  readonly scores?: readonly number[];
}

/** By place of the group in the list; undefined for a group of which the score cannot tell. */
export function removalOrders(request: OrderRequest): (RemovalOrder | undefined)[] {
  const { dependencies, order } = request;
  const score = pruningScore(request.score);
  const scored = scoredLayers(request);
  const scores = scoresOf(request, score, scored);
  return dependencies.groups.map((group) => {
    if (score.kind === 'elimination') {
      const readers = readersOf(group, scored);
      if (canEliminate(readers)) {
        const units = eliminationOrder(readers, group.units.length).map((place) => group.units[place]!);
        return { units: order === 'highest' ? units.reverse() : units };
      }
    }
    if (group.units.some((unit) => Number.isNaN(scores[unit]!))) return undefined;
    const rank = (unit: number): number => (order === 'highest' ? -scores[unit]! : scores[unit]!);
    const units = [...group.units].sort((a, b) => rank(a) - rank(b) || a - b);
    return { units, scores: units.map(rank) };
  });
}

function scoredLayers({ graph, dependencies, layers, grams, seed, normScales }: OrderRequest): ScoredLayer[] {
  const strengths = unitStrengths(layers, grams, dependencies.units.classOf.length);
  return layers.map((units, i): ScoredLayer => ({
    units,
    weights: weightMatrix(graph, units.layer),
    gram: grams.get(units.layer.name),
    strength: Float64Array.from(units.made, (unit) => (unit < 0 ? 1 : strengths[unit]!)),
    normScale: normScales?.get(units.layer.name),
    random: randomStream(seedOf(seed, i)),
  }));
}

/** By class. */
function scoresOf(
  { dependencies, measured }: OrderRequest,
  score: PruningScore,
  scored: readonly ScoredLayer[],
): Float64Array {
  const classes = dependencies.units.classOf.length;
  switch (score.kind) {
    case 'channels':
      return unitScores(score, scored, classes);
    case 'elimination':
      // Where readers are too large, or none has weights, the flow into them tells.
      return unitScores(FLOW_OUT, scored, classes);
    case 'gradients':
      return measured ?? new Float64Array(classes).fill(NaN);
  }
}

/** Root mean square of what every class gives, as the layers that multiply it see it. */
function unitStrengths(layers: readonly LayerUnits[], grams: ReadonlyMap<string, Gram>, classes: number): Float64Array {
  const sums = new Float64Array(classes);
  const counts = new Float64Array(classes);
  const note = (unit: number, square: number): void => {
    if (unit < 0) return;
    sums[unit]! += Math.sqrt(square);
    counts[unit]!++;
  };
  for (const { layer, made, read, taps } of layers) {
    const gram = grams.get(layer.name);
    if (!gram) continue;
    const { cols, data } = gram;
    const meanSquare = (block: number, from: number, count: number): number => {
      let sum = 0;
      for (let t = from; t < from + count; t++) sum += data[block * cols * cols + t * cols + t]!;
      return sum / count;
    };
    if (read) read.forEach((unit, channel) => note(unit, meanSquare(0, channel * taps, taps)));
    else if (layer.depthwise && layer.groups === made.length)
      made.forEach((unit, channel) => note(unit, meanSquare(channel, 0, cols)));
  }
  return sums.map((sum, unit) => (counts[unit]! > 0 ? sum / counts[unit]! : 1));
}

function readersOf({ units }: DependencyGroup, layers: readonly ScoredLayer[]): Reader[] {
  const place = new Map([...units].map((unit, i) => [unit, i]));
  return layers.flatMap(({ units: { layer, read, taps }, weights, gram }) => {
    if (!gram || !read || layer.op === 'ConvTranspose') return [];
    const columns = Array.from(units, (): number[] => []);
    let found = false;
    read.forEach((unit, channel) => {
      const at = place.get(unit);
      if (at === undefined) return;
      for (let tap = 0; tap < taps; tap++) columns[at]!.push(channel * taps + tap);
      found = true;
    });
    return found ? [{ weights, rows: layer.rows, gram, columns }] : [];
  });
}
