/** The smallest file of a model: short names, no annotations, no default attributes, equal constants stored once. */
import type { Graph, Value } from '../graph.js';
import { modelByteLength } from '../write.js';
import { dropDefaultAttributes } from './drop-defaults.js';
import { shareInitializers } from './share-initializers.js';

export interface Compaction {
  /** Bytes of the model as one file. */
  readonly bytesBefore: number;
  readonly bytesAfter: number;
  /** Values that have a shorter name now. */
  readonly renamed: number;
  /** Bytes of tensor contents that were stored more than once. */
  readonly sharedBytes: number;
}

/**
 * Renames every value but the inputs and outputs of the model, the most mentioned ones shortest, and drops the names of
 * nodes and all that engines do not read; metadata_props of the model stay. Runs in place, and last: messages and
 * reports name layers by what this pass removes.
 */
export function compactNames(graph: Graph): Compaction {
  const bytesBefore = modelByteLength(graph.toModel());
  const sharedBytes = shareInitializers(graph);
  graph.removeDead();
  graph.dropAnnotations();
  dropDefaultAttributes(graph);
  const renamed = shortenNames(graph);
  return { bytesBefore, bytesAfter: modelByteLength(graph.toModel()), renamed, sharedBytes };
}

function shortenNames(graph: Graph): number {
  const values = byMentions(graph);
  const old = new Map(values.map((value) => [value, value.name]));
  // Out of the way first: a short name may be in use already, by a value that will get another one.
  for (const value of values)
    if (value.name.length <= 4) graph.rename(value, graph.uniqueName(`renaming ${value.name}`));
  const names = shortNames();
  for (const value of values) {
    let name: string;
    do name = names.next().value;
    while (!graph.isFreeName(name));
    const before = old.get(value)!;
    // Numbers that are names already may be as short.
    graph.rename(value, before.length < name.length && graph.isFreeName(before) ? before : name);
  }
  return values.filter((value) => value.name.length < old.get(value)!.length).length;
}

/** Values that may be renamed, those first whose names are written most often, then by first mention. */
function byMentions(graph: Graph): Value[] {
  const fixed = new Set([...graph.inputs, ...graph.outputs]);
  const order = new Set<Value>();
  for (const node of graph.nodes) {
    for (const value of [...node.inputs, ...node.outputs]) if (value && !fixed.has(value)) order.add(value);
  }
  for (const value of graph.values()) if (!fixed.has(value)) order.add(value);
  return [...order].sort((a, b) => b.uses.size - a.uses.size);
}

const FIRST = 'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ';
const REST = `${FIRST}0123456789`;

/** a, b, ... Z, aa, ab, ...: identifiers, the shortest first. */
function* shortNames(): Generator<string, never> {
  for (let length = 1; ; length++) {
    const count = FIRST.length * REST.length ** (length - 1);
    for (let i = 0; i < count; i++) {
      let name = '';
      let rest = i;
      for (let at = 1; at < length; at++) {
        name = REST[rest % REST.length]! + name;
        rest = Math.floor(rest / REST.length);
      }
      yield FIRST[rest]! + name;
    }
  }
}
