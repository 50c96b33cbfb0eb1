/** Where quantizers stand once it is decided which nodes execute in int8, and which of them must be equal. */
import type { Graph, Node, Use, Value } from '../../onnx/graph.js';
import { readFloats } from '../../onnx/tensor.js';
import { absorbedNodes, activationInputs, handsOutFloats, outputsOf } from './candidates.js';
import { fusionOf } from './fusions.js';

export interface QuantizedValue {
  readonly value: Value;
  /** Places that read the rounded value; the others go on reading it in float. */
  readonly readers: readonly Use[];
  /** True when an int8 node computes it. */
  readonly madeInInt8: boolean;
}

/**
 * Every value that is rounded to uint8 when the nodes of `int8` (names of first outputs) execute in int8: their
 * activation inputs and their results, behind the Relu, Clip or bias that becomes part of the kernel.
 * A MatMul or Gemm hands out floats unless all of its readers execute in int8.
 */
export function quantizedValues(graph: Graph, int8: ReadonlySet<string>): QuantizedValue[] {
  const found = new Map<Value, { readers: Set<Use>; madeInInt8: boolean }>();
  const entry = (value: Value): { readers: Set<Use>; madeInInt8: boolean } => {
    let known = found.get(value);
    if (!known) found.set(value, (known = { readers: new Set(), madeInInt8: false }));
    return known;
  };
  const isInt8Use = (use: Use): boolean =>
    isInt8(use.node, int8) && activationInputs(graph, use.node).includes(use.node.inputs[use.index]!);
  for (const node of graph.nodes) {
    if (!isInt8(node, int8)) continue;
    for (const value of activationInputs(graph, node)) {
      for (const use of value.uses) if (use.node === node && use.index >= 0) entry(value).readers.add(use);
    }
    for (const value of resultsOf(graph, node)) {
      const uses = [...value.uses].filter((use) => use.index >= 0);
      if (handsOutFloats(node) && (graph.isGraphOutput(value) || uses.length === 0 || !uses.every(isInt8Use))) continue;
      const made = entry(value);
      made.madeInInt8 = true;
      for (const use of uses) made.readers.add(use);
    }
  }
  return [...found].map(([value, { readers, madeInInt8 }]) => ({ value, readers: [...readers], madeInInt8 }));
}

/** What an int8 node computes: its outputs, the first one behind the nodes that it absorbs. */
export function resultsOf(graph: Graph, node: Node): Value[] {
  const last = absorbedNodes(graph, node).at(-1);
  const first = (last ?? node).outputs[0];
  return first ? [first, ...outputsOf(node).filter((v) => v !== node.outputs[0])] : [];
}

function isInt8(node: Node, int8: ReadonlySet<string>): boolean {
  return int8.has(node.outputs[0]?.name ?? '');
}

/**
 * Names of the values that must share one quantizer, because an int8 node only moves or selects their elements. The
 * operands of a Concat are joined too when one clamp has bounded all of them, or none: a quantizer wider than a Clip,
 * or with a zero point above 0 behind a Relu, would keep that clamp from disappearing. Groups have two or more members.
 */
export function quantizerGroups(graph: Graph, int8: ReadonlySet<string>): string[][] {
  const groups = new DisjointSets();
  const clampOf = new Map<string, string>();
  for (const node of graph.nodes) {
    if (!isInt8(node, int8)) continue;
    const inputs = activationInputs(graph, node);
    const results = resultsOf(graph, node);
    if (!fusionOf(node, graph)?.tied) {
      for (const value of results) clampOf.set(value.name, clampKey(graph, value));
      continue;
    }
    const clamps = new Set(inputs.map((v) => clampOf.get(v.name) ?? clampKey(graph, v)));
    if (clamps.size > 1) continue;
    for (const value of results) for (const clamp of clamps) clampOf.set(value.name, clamp);
    for (const value of [...inputs, ...results]) groups.join(inputs[0]!.name, value.name);
  }
  return groups.groups();
}

/** Tells the clamps apart whose bounds a quantizer must respect. */
function clampKey(graph: Graph, value: Value): string {
  const node = value.producer;
  if (node?.is('Relu')) return 'Relu';
  if (!node?.is('Clip')) return '';
  const bounds = [1, 2].map((i) => {
    const tensor = graph.constant(node.inputs[i]);
    return tensor ? String(readFloats(tensor)[0]) : '';
  });
  return `Clip ${bounds.join(' ')}`;
}

class DisjointSets {
  private readonly parent = new Map<string, string>();

  join(a: string, b: string): void {
    const [rootA, rootB] = [this.root(a), this.root(b)];
    if (rootA !== rootB) this.parent.set(rootB, rootA);
  }

  groups(): string[][] {
    const members = new Map<string, string[]>();
    for (const name of this.parent.keys()) {
      const root = this.root(name);
      const list = members.get(root);
      if (list) list.push(name);
      else members.set(root, [name]);
    }
    return [...members.values()].filter((list) => list.length > 1);
  }

  private root(name: string): string {
    let current = name;
    for (let next = this.parent.get(current); next !== undefined && next !== current; next = this.parent.get(current)) {
      current = next;
    }
    this.parent.set(name, current);
    return current;
  }
}
