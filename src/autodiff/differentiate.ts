/** Reverse mode: adds the nodes to a graph that compute the gradient of a scalar value in some of its other values. */
import { FlowCompressError } from '../errors.js';
import type { Graph, Node, Value } from '../onnx/graph.js';
import { constantOf, reshape } from '../onnx/ops.js';
import { ordering } from './ordering.js';
import { recompute } from './recompute.js';
import { planSegments } from './segments.js';
import { GRADIENT_RULES } from './registry.js';
import { chooseForms, type FormsFor } from './rules/conv-shape.js';
import { stopsGradients } from './rules/not-differentiable.js';
import type { GradientRule, Shape } from './rule.js';

export interface DifferentiateOptions {
  /** Shape of every value that a node of the graph computes or reads; those of activations that are computed anew are added. */
  readonly shapes: Map<string, Shape>;
  /** Elements of a block of ONNX Runtime's blocked layout (`layoutBlock`): gradients may use its operators. */
  readonly block?: number | undefined;
  /** In which form the gradients of a convolution are computed (default: by its geometry, `chooseForms`). */
  readonly formsFor?: FormsFor | undefined;
  /**
   * Is told of every node on the way back that has no gradient rule, instead of an error. The gradients of all values
   * that such a node depends on are then unknown, whatever other ways lead to them, and left out.
   */
  readonly onRefusal?: (error: FlowCompressError) => void;
  /** Inputs with the samples. Activations, what is computed from them, are computed anew for the backward pass where that saves memory. */
  readonly checkpointed?: readonly Value[];
}

/**
 * @param loss a float value of one element
 * @param wanted float initializers, inputs or values of the graph
 * @returns by wanted value, its gradient (same shape); values that the loss does not depend on are absent
 * @throws FlowCompressError `unsupported` naming the first node, from the loss back, that has no gradient rule, unless
 *   `onRefusal` takes it
 */
export function differentiate(
  graph: Graph,
  loss: Value,
  wanted: readonly Value[],
  { shapes, block, formsFor = chooseForms, checkpointed, onRefusal }: DifferentiateOptions,
): Map<Value, Value> {
  const nodes = graph.nodes;
  const active = dependents(nodes, wanted);
  const parts = new Map<Value, Value[]>();
  const addPart = (value: Value, part: Value): void => {
    const list = parts.get(value);
    if (list) list.push(part);
    else parts.set(value, [part]);
  };
  const gradientOf = (value: Value): Value | undefined => {
    const list = parts.get(value);
    if (!list) return undefined;
    // Faster than one Sum, which ONNX Runtime computes in a single thread.
    if (list.length > 1) parts.set(value, [list.reduce((sum, part) => graph.insertOp('Add', [sum, part]))]);
    return parts.get(value)![0];
  };
  const shapeOf = (value: Value): Shape => {
    const shape = shapes.get(value.name) ?? graph.constant(value)?.dims.map(Number);
    if (!shape) throw new FlowCompressError('internal', `The shape of '${value.name}' is not known.`);
    return shape;
  };
  const lossDims = shapeOf(loss);
  if (lossDims.some((size) => size !== 1))
    throw new FlowCompressError('internal', `The loss '${loss.name}' is not one number.`);
  addPart(loss, ones(graph, lossDims.length));
  const refused = new Set<Node>();
  const order = ordering(graph);
  const activations = dependents(nodes, checkpointed ?? []);
  const bytesOf = (value: Value): number => (activations.has(value) ? bytesIn(shapes.get(value.name) ?? [0]) : 0);
  const segments = checkpointed ? planSegments(nodes, bytesOf) : [];
  let copies = new Map<Node, Node>();
  let finished: Value[] = [];
  for (const [at, node] of [...nodes.entries()].reverse()) {
    const segment = at === segments.at(-1)?.last ? segments.pop() : undefined;
    if (segment) {
      // All that later segments give: gradients of parameters that were left for later would keep what they read alive.
      const crossing = segment.crossing.filter((value) => shapeOf(value).length > 0);
      const started = [...crossing.flatMap((value) => parts.get(value) ?? []), ...finished];
      finished = [];
      const repeated = nodes.slice(segment.first, segment.last + 1);
      copies = started.length > 0 ? recompute({ graph, order, shapes, activations }, repeated, started) : new Map();
    }
    if (!readsOf(node).some((value) => active.has(value))) continue;
    const gradients = node.outputs.map((output) => output && gradientOf(output));
    if (gradients.every((gradient) => gradient === undefined)) continue;
    const needs = (input: number): boolean => {
      const value = node.inputs[input];
      return value !== undefined && active.has(value);
    };
    const context = { graph, node: copies.get(node) ?? node, gradients, needs, block, formsFor, shapeOf };
    const inputs = unlessRefused(() => ruleOf(node)(context), onRefusal);
    if (!inputs) refused.add(node);
    inputs?.forEach((gradient, i) => {
      if (!gradient || !needs(i)) return;
      const input = node.inputs[i]!;
      addPart(input, gradient);
      if (!activations.has(input) && shapeOf(input).length > 0) finished.push(gradient);
    });
  }
  const unknown = sourcesOf(nodes, refused);
  const found = new Map<Value, Value>();
  for (const value of wanted) {
    const gradient = unknown.has(value) ? undefined : gradientOf(value);
    if (gradient) found.set(value, gradient);
  }
  const smallest = [...found.keys()].sort((a, b) => bytesIn(shapeOf(a)) - bytesIn(shapeOf(b))).at(0);
  if (smallest) found.set(smallest, order.close(found.get(smallest)!));
  return found;
}

/** As float32. */
function bytesIn(shape: Shape): number {
  return shape.reduce<number>((size, dim) => size * (dim ?? 1), 4);
}

/** A one of that rank. */
function ones(graph: Graph, rank: number): Value {
  const one = constantOf(graph, [1], 'float32', { scalar: rank === 0 });
  return rank > 1
    ? reshape(
        graph,
        one,
        Array.from({ length: rank }, () => 1),
      )
    : one;
}

/** The values themselves and everything computed from them. */
function dependents(nodes: readonly Node[], values: readonly Value[]): Set<Value> {
  const active = new Set(values);
  for (const node of nodes) {
    if (stopsGradients(node)) continue;
    if (!readsOf(node).some((value) => active.has(value))) continue;
    for (const output of node.outputs) if (output) active.add(output);
  }
  return active;
}

/** Everything that some of the nodes, given in topological order, are computed from. */
function sourcesOf(nodes: readonly Node[], some: ReadonlySet<Node>): Set<Value> {
  const sources = new Set<Value>();
  if (some.size === 0) return sources;
  for (const node of nodes.toReversed()) {
    if (!some.has(node) && !node.outputs.some((output) => output && sources.has(output))) continue;
    for (const value of readsOf(node)) sources.add(value);
  }
  return sources;
}

function readsOf(node: Node): Value[] {
  return [...node.inputs, ...node.captures.map((capture) => capture.value)].filter((value) => value !== undefined);
}

/** What a rule gives; undefined when it refuses its node and `onRefusal` takes the error. */
function unlessRefused<T>(rule: () => T, onRefusal: DifferentiateOptions['onRefusal']): T | undefined {
  try {
    return rule();
  } catch (error) {
    if (!onRefusal || !(error instanceof FlowCompressError) || error.code !== 'unsupported') throw error;
    onRefusal(error);
    return undefined;
  }
}

function ruleOf(node: Node): GradientRule {
  const { domain, opType } = node;
  const rule = GRADIENT_RULES[domain === '' ? opType : `${domain}:${opType}`];
  if (rule) return rule;
  throw new FlowCompressError('unsupported', `There is no gradient rule for ${domain && `${domain}.`}${opType}.`, {
    node: node.label,
    hint: 'Only parameters behind this node can be trained; export the model with standard operators instead.',
  });
}
