/** The order in which the units of every group would go, by a score. */
import { randomStream, seedOf } from '../data/random.js';
import type { Gram } from '../flow/gram-probe.js';
import type { Graph } from '../onnx/graph.js';
import { weightMatrix } from '../onnx/layers.js';
import { canEliminate, eliminationOrder, type Reader } from './elimination.js';
import type { Dependencies, DependencyGroup } from './groups.js';
import type { LayerUnits } from './layer-units.js';
import { pruningScore, unitScores, type ScoredLayer, type ScoreName } from './scores.js';

export interface OrderRequest {
  readonly graph: Graph;
  readonly dependencies: Dependencies;
  readonly layers: readonly LayerUnits[];
  /** By layer name. */
  readonly grams: ReadonlyMap<string, Gram>;
  readonly score: ScoreName;
  readonly seed: number;
}

export interface RemovalOrder {
  /** Classes of the group, the first to go first. */
  readonly units: readonly number[];
  /** What each is worth, comparable over all groups, never falling; absent for scores that only order. */
  readonly scores?: readonly number[];
}

/** By place of the group in the list. */
export function removalOrders(request: OrderRequest): RemovalOrder[] {
  const { graph, dependencies, layers, grams, seed } = request;
  const score = pruningScore(request.score);
  // Where readers are too large, or none has weights, the flow into them tells.
  const plain = score.kind === 'channels' ? score : pruningScore('flow-out');
  if (plain.kind !== 'channels') return [];
  const strengths = unitStrengths(layers, grams, dependencies.units.classOf.length);
  const scored = layers.map((units, i): ScoredLayer => ({
    units,
    weights: weightMatrix(graph, units.layer),
    gram: grams.get(units.layer.name),
    strength: Float64Array.from(units.made, (unit) => (unit < 0 ? 1 : strengths[unit]!)),
    random: randomStream(seedOf(seed, i)),
  }));
  const scores = unitScores(plain, scored, dependencies.units.classOf.length);
  return dependencies.groups.map((group) => {
    if (score.kind === 'elimination') {
      const readers = readersOf(group, scored);
      if (canEliminate(readers))
        return { units: eliminationOrder(readers, group.units.length).map((place) => group.units[place]!) };
    }
    const units = [...group.units].sort((a, b) => scores[a]! - scores[b]! || a - b);
    return { units, scores: units.map((unit) => scores[unit]!) };
  });
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
