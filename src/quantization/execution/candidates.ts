/** Which nodes of a prepared model can execute in int8 on a target, and which values then carry a quantizer. */
import type { Graph, Node, Value } from '../../onnx/graph.js';
import { findLayers } from '../../onnx/layers.js';
import { isShortcutConv } from '../../onnx/passes/shortcut-to-conv.js';
import { readFloats } from '../../onnx/tensor.js';
import { TARGETS, type TargetName } from '../../runtime/target.js';
import type { TracedValues } from '../../runtime/trace.js';
import { isQuantizable } from '../units.js';
import { fusionOf } from './fusions.js';

export interface Int8Candidate {
  readonly node: Node;
  readonly kind: 'weighted' | 'compute' | 'move';
  /** Known to be no faster than float on most machines (depthwise convolutions). */
  readonly slow: boolean;
  /** The node and those that disappear into it: the bias Add of a MatMul, a Relu or Clip. */
  readonly unit: readonly Node[];
}

/**
 * Nodes that the target's engine runs on uint8 activations and int8 weights, by the name of their first output.
 * Empty for targets without such kernels.
 * @param shapes type and dims of every computed value
 */
export function int8Candidates(graph: Graph, shapes: TracedValues, target: TargetName): Map<string, Int8Candidate> {
  const candidates = new Map<string, Int8Candidate>();
  if (!TARGETS[target].int8) return candidates;
  const layers = new Map(
    findLayers(graph)
      .filter(isQuantizable)
      .map((layer) => [layer.node, layer]),
  );
  const isFloat = (value: Value): boolean => shapes.get(value.name)?.type === 'float32' && !graph.constant(value);
  for (const node of graph.nodes) {
    const output = node.outputs[0];
    const fusion = fusionOf(node, graph);
    if (!fusion || !output) continue;
    const inputs = activationInputs(graph, node);
    if (inputs.length === 0 || !inputs.every(isFloat) || !outputsOf(node).every(isFloat)) continue;
    // A subgraph would go on reading the float value, and the node would not fuse.
    if (outputsOf(node).some((v) => [...v.uses].some((use) => use.index < 0))) continue;
    if (fusion.activations === 'two' && inputs.length !== 2) continue;
    if (fusion.activations === 'all' && inputs.length !== node.inputs.length) continue;
    const absorbed = absorbedNodes(graph, node);
    const result = (absorbed.at(-1) ?? node).outputs[0]!;
    // What the caller reads stays unrounded. MatMul and Gemm kernels can write floats, but not uint8 beside them.
    if ([result, ...outputsOf(node)].some((v) => graph.isGraphOutput(v))) {
      if (!handsOutFloats(node) || [...result.uses].some((use) => fusionOf(use.node, graph))) continue;
    }
    const layer = layers.get(node);
    if (fusion.kind === 'weighted' && !layer && !isShortcutConv(node)) continue;
    // What a shape or index input says must be known at load, or the engine cannot move it across the quantizers.
    if (fusion.kind !== 'weighted' && node.inputs.some((v) => v && !inputs.includes(v) && !graph.constant(v))) continue;
    candidates.set(output.name, {
      node,
      kind: fusion.kind,
      slow: layer?.depthwise ?? false,
      unit: [node, ...absorbed],
    });
  }
  return candidates;
}

/** Inputs of a node that carry activations when it runs in int8, each once. */
export function activationInputs(graph: Graph, node: Node): Value[] {
  const fusion = fusionOf(node, graph);
  if (!fusion) return [];
  const count = { first: 1, two: 2, all: node.inputs.length }[fusion.activations];
  const values = node.inputs.slice(0, count).filter((v): v is Value => v !== undefined && !graph.constant(v));
  return fusion.activations === 'two' ? values : [...new Set(values)];
}

/** MatMul and Gemm kernels write float results as cheaply as uint8 ones; all others need a quantizer behind them. */
export function handsOutFloats(node: Node): boolean {
  return node.is('MatMul') || node.is('Gemm');
}

/** Outputs of a node that exist. */
export function outputsOf(node: Node): Value[] {
  return node.outputs.filter((v): v is Value => v !== undefined);
}

/** Nodes behind `node` that become part of its int8 kernel, in order. */
export function absorbedNodes(graph: Graph, node: Node): Node[] {
  if (!fusionOf(node, graph)?.foldsClamp) return [];
  const absorbed: Node[] = [];
  let output = node.outputs[0];
  if (node.is('MatMul')) {
    const add = soleReader(graph, output);
    if (add?.is('Add') && isVector(graph, add)) {
      absorbed.push(add);
      output = add.outputs[0];
    }
  }
  const clamp = soleReader(graph, output);
  if (clamp && isClampAtZero(graph, clamp) && clamp.inputs[0] === output) absorbed.push(clamp);
  return absorbed;
}

function soleReader(graph: Graph, value: Value | undefined): Node | undefined {
  if (!value || value.uses.size !== 1 || graph.isGraphOutput(value)) return undefined;
  const [use] = value.uses;
  return use && use.index >= 0 ? use.node : undefined;
}

function isVector(graph: Graph, add: Node): boolean {
  return add.inputs.some((v) => graph.constant(v)?.dims.length === 1);
}

/** Relu, or a Clip from 0: what clamping to the uint8 range does anyway when the zero point is 0. */
function isClampAtZero(graph: Graph, node: Node): boolean {
  if (node.is('Relu')) return true;
  if (!node.is('Clip')) return false;
  const low = graph.constant(node.inputs[1]);
  return (
    low !== undefined && readFloats(low)[0] === 0 && (!node.inputs[2] || graph.constant(node.inputs[2]) !== undefined)
  );
}
