import { describe, expect, it } from 'vitest';
import { intAttribute } from '../onnx/attributes.js';
import { DataType } from '../onnx/dtypes.js';
import { Graph } from '../onnx/graph.js';
import { info, op, tinyModel } from '../testing/graph-writing.js';
import { gradientModel } from '../testing/gradient-model.js';
import { array } from '../testing/reference/array.js';
import { evaluate } from '../testing/reference/evaluate.js';
import { differentiate } from './differentiate.js';

const X = { x: array([3], [1.5, -2.2, 3.7]) };

/** y = x f, where f is x rounded and squared in whole numbers. */
const model = tinyModel({
  inputs: [info('x', [3])],
  outputs: [info('y', [3])],
  nodes: [
    op('Cast x -> whole', [intAttribute('to', DataType.INT64)]),
    op('Mul whole whole -> square'),
    op('Cast square -> f', [intAttribute('to', DataType.FLOAT)]),
    op('Mul x f -> y'),
  ],
});

describe('differentiate', () => {
  it('builds nothing behind values that are whole numbers', () => {
    const { model: found, names } = gradientModel(model, [X], { wanted: ['x'] });
    const gradients = new Graph(found);
    const whole = new Set(['whole', 'square']);
    const readers = gradients.nodes.filter((node) => node.inputs.some((input) => whole.has(input?.name ?? '')));
    expect(readers.map((node) => node.opType)).toEqual(['Mul', 'Cast']);
    expect(gradients.nodes.filter((node) => node.is('Cast'))).toHaveLength(2);
    // Loss sum y^2: 2 y f for the factor x alone.
    const values = evaluate(found, X);
    const expected = [...X.x.data].map((x) => 2 * x * Math.trunc(x) ** 4);
    [...values.get(names.get('x')!)!.data].forEach((value, i) => expect(value).toBeCloseTo(expected[i]!, 9));
  });

  it('gives no gradient, and adds no node, where all ways lead through whole numbers', () => {
    const graph = new Graph(model);
    const loss = graph.insertOp('ReduceSum', [graph.mustGet('f')], [intAttribute('keepdims', 0)]);
    const shapes = new Map([...evaluate(graph.toModel(), X)].map(([name, { dims }]) => [name, dims]));
    const count = graph.nodeCount;
    expect(differentiate(graph, loss, [graph.mustGet('x')], { shapes }).size).toBe(0);
    expect(graph.nodeCount).toBe(count);
  });
});
