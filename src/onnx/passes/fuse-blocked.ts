/** Lets blocked convolutions do what stands behind them, in the same pass over their result. */
import { stringAttribute } from '../attributes.js';
import { BLOCKED_DOMAIN, insertBlocked } from '../blocked.js';
import type { Graph, Node, Value } from '../graph.js';
import { formula, reshape } from '../ops.js';

/**
 * Rewrites in place; returns how many nodes were taken in. Scaling behind scaling becomes one, a sum becomes the value that
 * the convolution starts from, and Relu its activation (operator `Conv` of ONNX Runtime's blocked domain).
 */
export function fuseBlocked(graph: Graph): number {
  let count = 0;
  for (const node of graph.nodes) {
    if (isPlainConv(node) && joinScales(graph, node)) count++;
    else if (node.is('Add') && joinSum(graph, node)) count++;
    else if (node.is('Relu') && joinRelu(graph, node)) count++;
  }
  return count;
}

/** A blocked convolution without anything taken in. */
function isPlainConv(node: Node | undefined): node is Node {
  return !!node?.is('Conv', BLOCKED_DOMAIN) && !node.inputs[3] && !node.attributes.has('activation');
}

/** The blocked convolution that computes a value which is read once. */
function onlyConv(graph: Graph, value: Value | undefined): Node | undefined {
  const node = value?.producer;
  return value?.uses.size === 1 && !graph.isGraphOutput(value) && isPlainConv(node) ? node : undefined;
}

/** One factor per channel and no padding. */
function isScale(node: Node): boolean {
  const [one, pads] = [node.ints('kernel_shape'), node.ints('pads')];
  return node.int('group', 1) > 1 && one?.join() === '1,1' && !!pads?.every((count) => count === 0);
}

/** (x a + b) c + d = x (a c) + (b c + d) */
function joinScales(graph: Graph, second: Node): boolean {
  const first = onlyConv(graph, second.inputs[0]);
  if (!first || !isScale(first) || !isScale(second)) return false;
  const op = formula(graph);
  const [x, a, b] = first.inputs as [Value, Value, Value | undefined];
  const [, c, d] = second.inputs as [Value, Value, Value | undefined];
  const moved = b && op('Mul', b, reshape(graph, c, [-1]));
  const term = moved && d ? op('Add', moved, d) : (moved ?? d);
  const joined = insertBlocked(graph, 'Conv', [x, op('Mul', a, c), term], [...second.attributes.values()]);
  replace(graph, second, joined);
  graph.remove(first);
  return true;
}

function joinSum(graph: Graph, node: Node): boolean {
  for (const [i, value] of node.inputs.entries()) {
    const conv = onlyConv(graph, value);
    const other = node.inputs[1 - i]!;
    if (!conv || graph.constant(other)) continue;
    const [x, weight, bias] = conv.inputs;
    const joined = insertBlocked(graph, 'Conv', [x, weight, bias, other], [...conv.attributes.values()]);
    replace(graph, node, joined);
    graph.remove(conv);
    return true;
  }
  return false;
}

function joinRelu(graph: Graph, node: Node): boolean {
  const value = node.inputs[0]!;
  const conv = value.producer;
  if (value.uses.size !== 1 || graph.isGraphOutput(value) || !conv?.is('Conv', BLOCKED_DOMAIN)) return false;
  if (conv.attributes.has('activation')) return false;
  graph.setAttribute(conv, stringAttribute('activation', 'Relu'));
  replace(graph, node, value);
  return true;
}

function replace(graph: Graph, node: Node, value: Value): void {
  graph.replaceUses(node.outputs[0]!, value);
  graph.remove(node);
}
