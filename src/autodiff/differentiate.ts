/** Reverse mode: adds the nodes to a graph that compute the gradient of a scalar value in some of its other values. */
import { FlowCompressError } from '../errors.js';
import type { Graph, Node, Value } from '../onnx/graph.js';
import { constantOf, reshape } from '../onnx/ops.js';
import { GRADIENT_RULES } from './registry.js';
import { stopsGradients } from './rules/not-differentiable.js';
import type { GradientRule, Shape } from './rule.js';

export interface DifferentiateOptions {
  /** Shape of every value that a node of the graph computes or reads. */
  readonly shapes: ReadonlyMap<string, Shape>;
  /** Elements of a block of ONNX Runtime's blocked layout (`layoutBlock`): gradients may use its operators. */
  readonly block?: number | undefined;
}

/**
 * @param loss a float value of one element
 * @param wanted float initializers, inputs or values of the graph
 * @returns by wanted value, its gradient (same shape); values that the loss does not depend on are absent
 * @throws FlowCompressError `unsupported` naming the first node, from the loss back, that has no gradient rule
 */
export function differentiate(
  graph: Graph,
  loss: Value,
  wanted: readonly Value[],
  { shapes, block }: DifferentiateOptions,
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
    if (list.length > 1) parts.set(value, [graph.insertOp('Sum', list)]);
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
  for (const node of nodes.reverse()) {
    const reads = [...node.inputs, ...node.captures.map((capture) => capture.value)];
    if (!reads.some((value) => value && active.has(value))) continue;
    const gradients = node.outputs.map((output) => output && gradientOf(output));
    if (gradients.every((gradient) => gradient === undefined)) continue;
    const needs = (input: number): boolean => {
      const value = node.inputs[input];
      return value !== undefined && active.has(value);
    };
    const inputs = ruleOf(node)({ graph, node, gradients, needs, block, shapeOf });
    inputs.forEach((gradient, i) => {
      if (gradient && needs(i)) addPart(node.inputs[i]!, gradient);
    });
  }
  const found = new Map<Value, Value>();
  for (const value of wanted) {
    const gradient = gradientOf(value);
    if (gradient) found.set(value, gradient);
  }
  return found;
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
    const reads = [...node.inputs, ...node.captures.map((capture) => capture.value)];
    if (!reads.some((value) => value && active.has(value))) continue;
    for (const output of node.outputs) if (output) active.add(output);
  }
  return active;
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
