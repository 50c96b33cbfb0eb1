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
  /**
   * True for the result of a float MaxPool. The engine would move the quantizer in front of the pool and run it on uint8
   * in a layout where that is many times slower: an operator that it cannot see through must stand between (`Max` of one input).
   */
  readonly guarded: boolean;
}

/**
 * Every value that is rounded to uint8 when the nodes of `int8` (names of first outputs) execute in int8: their
 * activation inputs and their results, behind the Relu, Clip or bias that becomes part of the kernel.
 * A MatMul or Gemm hands out floats unless one of its readers executes in int8.
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
      // Floats and uint8 at once would keep the kernel from fusing: float readers then take the rounded value.
      if (handsOutFloats(node) && (graph.isGraphOutput(value) || !uses.some(isInt8Use))) continue;
      const made = entry(value);
      made.madeInInt8 = true;
      for (const use of uses) made.readers.add(use);
    }
  }
  return [...found].map(([value, { readers, madeInInt8 }]) => ({
    value,
    readers: [...readers],
    madeInInt8,
    guarded: !madeInInt8 && value.producer?.is('MaxPool') === true,
  }));
}

/** What an int8 node computes: its outputs, the first one behind the nodes that it absorbs. */
export function resultsOf(graph: Graph, node: Node): Value[] {
  const last = absorbedNodes(graph, node).at(-1);
  const first = (last ?? node).outputs[0];
  return first ? [first, ...outputsOf(node).filter((v) => v !== node.outputs[0])] : [];
}

/** Operators whose float weights the engine rounds to int8 by itself, per tensor, when quantizers stand on both sides. */
const ROUNDED_BY_ENGINE = new Set(['Conv', 'ConvTranspose', 'Gemm', 'MatMul']);

/**
 * Float layers that read a rounded value and whose result is rounded again. The engine would turn them into int8
 * layers, with weights of its own making: they need an operator that it cannot see through in front (`Max` of one input).
 */
export function layersBetweenQuantizers(graph: Graph, int8: ReadonlySet<string>): Node[] {
  const rounded = quantizedValues(graph, int8);
  const results = new Set(rounded.map((q) => q.value));
  const readers = new Set(rounded.flatMap((q) => q.readers.filter((use) => use.index === 0).map((use) => use.node)));
  return graph.nodes.filter((node) => {
    if (node.is('MatMul') && !graph.constant(node.inputs[1])) return false;
    if (node.domain !== '' || !ROUNDED_BY_ENGINE.has(node.opType) || isInt8(node, int8) || !readers.has(node))
      return false;
    let value = node.outputs[0];
    while (value && !results.has(value)) value = behindClampOrBias(graph, value);
    return value !== undefined;
  });
}

/** The output of the Relu, Clip or addition of a constant that alone reads the value. */
function behindClampOrBias(graph: Graph, value: Value): Value | undefined {
  if (value.uses.size !== 1) return undefined;
  const [use] = value.uses;
  const node = use!.node;
  const passes = node.is('Relu') || node.is('Clip') || (node.is('Add') && node.inputs.some((v) => graph.constant(v)));
  return passes ? node.outputs[0] : undefined;
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
