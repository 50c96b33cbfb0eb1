/**
 * Where to cut a forward pass whose activations are computed anew for the backward pass (Chen et al. 2016): what crosses a cut is
 * kept, what lies between two cuts lives only while its segment is gone back through.
 */
import type { Node, Value } from '../onnx/graph.js';

/** Consecutive nodes that are computed anew together. */
export interface Segment {
  /** Positions of the first and the last node. */
  readonly first: number;
  readonly last: number;
  /** What is computed up to here and read later. */
  readonly crossing: readonly Value[];
}

/** Segments that are tried at most; about the square root of the depth is best. */
const MOST = 24;
/** Share of a segment's bytes by which a cut may move to where little crosses it. */
const LEEWAY = 0.35;

/**
 * The segments but the last one, whose activations are there when the backward pass begins. The number of them is the one for which
 * what crosses the cuts and the largest segment together are smallest; none where that saves nothing.
 * @param nodes in the order in which they are computed
 * @param bytesOf size of an activation, 0 of everything else
 */
export function planSegments(nodes: readonly Node[], bytesOf: (value: Value) => number): Segment[] {
  const place = new Map(nodes.map((node, at) => [node, at]));
  const made = nodes.map((node) => node.outputs.filter((value): value is Value => value !== undefined));
  const lastRead = (value: Value): number =>
    [...value.uses].reduce((latest, { node }) => Math.max(latest, place.get(node) ?? -1), -1);
  const sizes = made.map((values) => values.reduce((sum, value) => sum + bytesOf(value), 0));
  const upTo: number[] = [];
  for (const size of sizes) upTo.push((upTo.at(-1) ?? 0) + size);
  const total = upTo.at(-1) ?? 0;
  const crossingBytes = new Array<number>(nodes.length).fill(0);
  made.forEach((values, at) => {
    for (const value of values) for (let p = at; p < lastRead(value); p++) crossingBytes[p]! += bytesOf(value);
  });

  let best: { cuts: number[]; peak: number } = { cuts: [], peak: total };
  for (let count = 2; count <= MOST; count++) {
    const cuts: number[] = [];
    for (let k = 1; k < count; k++) {
      const [from, to] = [(total * (k - LEEWAY)) / count, (total * (k + LEEWAY)) / count];
      let cut = -1;
      for (let p = (cuts.at(-1) ?? -1) + 1; p < nodes.length; p++)
        if (upTo[p]! >= from && upTo[p]! <= to && (cut < 0 || crossingBytes[p]! < crossingBytes[cut]!)) cut = p;
      if (cut >= 0) cuts.push(cut);
    }
    const bounds = [0, ...cuts.map((cut) => upTo[cut]!), total];
    const largest = Math.max(...bounds.slice(1).map((bound, i) => bound - bounds[i]!));
    const peak = largest + cuts.reduce((sum, cut) => sum + crossingBytes[cut]!, 0);
    if (peak < best.peak) best = { cuts, peak };
  }
  return best.cuts.map((last, i) => ({
    first: i === 0 ? 0 : best.cuts[i - 1]! + 1,
    last,
    crossing: made
      .slice(0, last + 1)
      .flat()
      .filter((value) => bytesOf(value) > 0 && lastRead(value) > last),
  }));
}
