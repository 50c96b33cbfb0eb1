/**
 * Channel shuffles are written as Reshape, Transpose, Reshape. As one Gather with constant indices they say which index goes
 * where, and any of them can be removed.
 */
import { intAttribute } from '../attributes.js';
import type { Graph, Node } from '../graph.js';
import type { Shapes } from '../macs.js';
import { constantOf } from '../ops.js';

/** Where the element at index j along an axis comes from. */
interface Shuffle {
  readonly axis: number;
  readonly sources: readonly number[];
}

/**
 * Rewrites the shuffles in place and returns how many there were.
 * @param shapes dims of the values; traced with several samples where the batch is open, so that it is no axis of length 1
 */
export function shuffleToGather(graph: Graph, shapes: Shapes): number {
  let count = 0;
  for (const last of graph.nodes) {
    if (!last.is('Reshape')) continue;
    const transpose = feederOf(graph, last, 'Transpose');
    const first = transpose && feederOf(graph, transpose, 'Reshape');
    const input = first?.inputs[0];
    const output = last.outputs[0];
    if (!transpose || !input || !output) continue;
    const dims = (name: string | undefined): readonly number[] => shapes.get(name ?? '')?.dims ?? [];
    const perm = transpose.ints('perm') ?? dims(first.outputs[0]?.name).map((_, at, all) => all.length - 1 - at);
    if (dims(input.name).join() !== dims(output.name).join()) continue;
    const shuffle = shuffleOf(dims(input.name), dims(first.outputs[0]?.name), perm);
    if (!shuffle) continue;
    const indices = constantOf(graph, shuffle.sources, 'int64', { name: `${last.label}_indices` });
    graph.detach(output);
    const attributes = [intAttribute('axis', shuffle.axis)];
    graph.insert({ opType: 'Gather', name: last.name, inputs: [input, indices], outputs: [output], attributes });
    for (const node of [last, transpose, first]) graph.remove(node);
    count++;
  }
  return count;
}

/** The producer of the node's data, if it is of that type and nobody else reads it. */
function feederOf(graph: Graph, node: Node, opType: string): Node | undefined {
  const value = node.inputs[0];
  const alone = value?.uses.size === 1 && !graph.isGraphOutput(value);
  return alone && value.producer?.is(opType) ? value.producer : undefined;
}

/** What splitting one axis, exchanging its parts and merging them again does; undefined where more than one axis is touched. */
function shuffleOf(dims: readonly number[], split: readonly number[], perm: readonly number[]): Shuffle | undefined {
  if (dims.length === 0 || split.length === 0) return undefined;
  const order = perm.filter((axis) => split[axis] !== 1);
  const parts = [...order].sort((a, b) => a - b);
  let from = 0;
  let found: Shuffle | undefined;
  for (const [axis, size] of dims.entries()) {
    if (size === 1) continue;
    let to = from;
    for (let product = 1; product < size; to++) {
      if (to >= parts.length) return undefined;
      product *= split[parts[to]];
      if (product > size) return undefined;
    }
    const [own, moved] = [parts.slice(from, to), order.slice(from, to)];
    from = to;
    if (own.every((part, at) => part === moved[at])) continue;
    if (found || !moved.every((part) => own.includes(part))) return undefined;
    found = { axis, sources: sourcesOf(own, moved, split) };
  }
  return found;
}

/** Row-major places of the elements, in the order of the moved parts. */
function sourcesOf(own: readonly number[], moved: readonly number[], sizes: readonly number[]): number[] {
  const stride = new Map<number, number>();
  own.reduceRight((step, part) => {
    stride.set(part, step);
    return step * sizes[part];
  }, 1);
  return moved.reduce<number[]>(
    (places, part) =>
      places.flatMap((place) => Array.from({ length: sizes[part] }, (_, i) => place + i * stride.get(part)!)),
    [0],
  );
}
