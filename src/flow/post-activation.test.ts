/** The activation behind a layer is found by its arithmetic, and its derivative agrees with finite differences. */
import { describe, expect, it } from 'vitest';
import { floatAttribute, stringAttribute } from '../onnx/attributes.js';
import { Graph, type Value } from '../onnx/graph.js';
import { nodeEngine } from '../node/onnxruntime.js';
import { exposeValue } from '../runtime/trace.js';
import { Builder } from '../testing/flow-models.js';
import { toBytes } from '../onnx/to-bytes.js';
import { findLayers } from '../onnx/layers.js';
import { activationSlope, postActivation } from './post-activation.js';

const POINTS = 64;

/** A layer with weights 1 (so that z is the input), then `activate`, then something that reads the result. */
function build(opset: number, activate: (b: Builder, z: Value) => Value): ReturnType<Builder['done']> {
  const b = new Builder(opset);
  const x = b.input('x', [1]);
  const z = b.op('MatMul', [x, b.constant([1, 1], Float32Array.of(1))]);
  return b.done(b.op('ReduceMax', [activate(b, z)]));
}

const FORMS: [string, number, (b: Builder, z: Value) => Value][] = [
  ['Relu', 17, (b, z) => b.op('Relu', [z])],
  ['LeakyRelu', 17, (b, z) => b.op('LeakyRelu', [z], [floatAttribute('alpha', 0.3)])],
  ['PRelu', 17, (b, z) => b.op('PRelu', [z, b.constant([1], Float32Array.of(0.2))])],
  ['ThresholdedRelu', 17, (b, z) => b.op('ThresholdedRelu', [z], [floatAttribute('alpha', 0.5)])],
  ['Elu', 17, (b, z) => b.op('Elu', [z], [floatAttribute('alpha', 0.7)])],
  ['Celu', 17, (b, z) => b.op('Celu', [z], [floatAttribute('alpha', 0.7)])],
  ['Selu', 17, (b, z) => b.op('Selu', [z])],
  ['Clip', 17, (b, z) => b.op('Clip', [z, b.scalar(-1), b.scalar(2)])],
  ['Sigmoid', 17, (b, z) => b.op('Sigmoid', [z])],
  ['HardSigmoid', 17, (b, z) => b.op('HardSigmoid', [z])],
  ['HardSwish', 17, (b, z) => b.op('HardSwish', [z])],
  ['Tanh', 17, (b, z) => b.op('Tanh', [z])],
  ['Softplus', 17, (b, z) => b.op('Softplus', [z])],
  ['Softsign', 17, (b, z) => b.op('Softsign', [z])],
  ['Mish', 18, (b, z) => b.op('Mish', [z])],
  ['Gelu', 20, (b, z) => b.op('Gelu', [z])],
  ['Gelu tanh', 20, (b, z) => b.op('Gelu', [z], [stringAttribute('approximate', 'tanh')])],
  ['SiLU in parts', 17, (b, z) => b.op('Mul', [z, b.op('Sigmoid', [z])])],
  [
    'GELU in parts, erf',
    17,
    (b, z) => {
      const one = b.op('Add', [b.op('Erf', [b.op('Div', [z, b.scalar(Math.SQRT2)])]), b.scalar(1)]);
      return b.op('Mul', [b.op('Mul', [z, one]), b.scalar(0.5)]);
    },
  ],
  [
    'GELU in parts, tanh',
    17,
    (b, z) => {
      const cube = b.op('Pow', [z, b.scalar(3)]);
      const inner = b.op('Add', [z, b.op('Mul', [cube, b.scalar(0.044715)])]);
      const t = b.op('Tanh', [b.op('Mul', [inner, b.scalar(Math.sqrt(2 / Math.PI))])]);
      return b.op('Mul', [b.op('Mul', [z, b.op('Add', [t, b.scalar(1)])]), b.scalar(0.5)]);
    },
  ],
  [
    'HardSwish in parts',
    17,
    (b, z) => {
      const clipped = b.op('Clip', [b.op('Add', [z, b.scalar(3)]), b.scalar(0), b.scalar(6)]);
      return b.op('Div', [b.op('Mul', [z, clipped]), b.scalar(6)]);
    },
  ],
  [
    'quotient 1 / (1 + exp(-z))',
    17,
    (b, z) => b.op('Div', [b.scalar(1), b.op('Add', [b.op('Exp', [b.op('Neg', [z])]), b.scalar(1)])]),
  ],
];

describe('activation functions', () => {
  it.each(FORMS)('%s: found whole, derivative as by finite differences', async (_, opset, activate) => {
    const model = build(opset, activate);
    const graph = new Graph(model);
    const max = graph.nodes.find((node) => node.is('ReduceMax'))!;
    const start = findLayers(graph)[0]!.output;
    const own = postActivation(graph, start);
    expect(own.output).toBe(max.inputs[0]!.name);
    expect(own.z).toBe(start.name);
    const slope = activationSlope(graph, own);
    if (typeof slope === 'number') throw new Error('a slope per element is expected');
    exposeValue(graph, slope);
    exposeValue(graph, graph.mustGet(own.output));
    const session = await nodeEngine({ threads: 1 }).createSession(toBytes(graph.toModel()));
    const run = async (shift: number): Promise<Record<string, ArrayLike<number>>> => {
      // 0.0137 keeps the points away from the kinks at whole and half numbers.
      const data = Float32Array.from({ length: POINTS }, (_v, i) => (i - POINTS / 2) / 8 + 0.0137 + shift);
      const results = await session.run({ x: { type: 'float32', dims: [POINTS, 1], data } });
      return Object.fromEntries(Object.entries(results).map(([key, t]) => [key, t.data as Float32Array]));
    };
    const h = 4e-3;
    const [center, above, below] = [await run(0), await run(h), await run(-h)];
    await session.release();
    for (let i = 0; i < POINTS; i++) {
      const difference = (above![own.output]![i]! - below![own.output]![i]!) / (2 * h);
      expect(center![slope.name]![i]!).toBeCloseTo(difference, 2);
    }
  });

  it('is the identity where the pre-activation is read elsewhere too', () => {
    const b = new Builder();
    const z = b.dense(b.input('x', [4]), 4, 4);
    const model = b.done(b.op('Add', [z, b.op('Relu', [z])]), z);
    const graph = new Graph(model);
    const found = postActivation(graph, findLayers(graph)[0]!.output);
    expect(found).toMatchObject({ z: z.name, output: z.name, linear: z.name, path: [] });
  });

  it('does not take a scaling for an activation', () => {
    const b = new Builder();
    const z = b.dense(b.input('x', [4]), 4, 4);
    const graph = new Graph(b.done(b.op('Softmax', [b.op('Mul', [z, b.scalar(0.5)])])));
    expect(postActivation(graph, findLayers(graph)[0]!.output).output).toBe(z.name);
  });

  it('stops at a gate: the product with another activation is not a function of z alone', () => {
    const b = new Builder();
    const x = b.input('x', [4]);
    const z = b.dense(x, 4, 4);
    const gate = b.op('Sigmoid', [z]);
    const graph = new Graph(b.done(b.op('Mul', [gate, x])));
    expect(postActivation(graph, findLayers(graph)[0]!.output)).toMatchObject({ z: z.name, output: gate.name });
  });

  it('looks behind a normalization only when an activation follows it', () => {
    const normalized = (activation: boolean): { graph: Graph; z: string; end: string } => {
      const b = new Builder();
      const conv = b.conv(b.input('x', [3, 4, 4]), [6, 3, 3, 3]);
      const norm = b.op('InstanceNormalization', [conv, b.weight([6]), b.weight([6])]);
      const end = activation ? b.op('Relu', [norm]) : norm;
      return { graph: new Graph(b.done(b.op('GlobalAveragePool', [end]))), z: conv.name, end: end.name };
    };
    const plain = normalized(false);
    expect(postActivation(plain.graph, plain.graph.mustGet(plain.z)).output).toBe(plain.z);
    const active = normalized(true);
    expect(postActivation(active.graph, active.graph.mustGet(active.z)).output).toBe(active.end);
  });
});
