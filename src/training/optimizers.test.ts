import { describe, expect, it } from 'vitest';
import { DataType } from '../onnx/dtypes.js';
import { emptyModel, Graph, type Value } from '../onnx/graph.js';
import { concat } from '../onnx/ops.js';
import { makeTensor } from '../onnx/tensor.js';
import { toBytes } from '../onnx/to-bytes.js';
import { tensorInfo } from '../onnx/value-info.js';
import type { Feeds } from '../runtime/engine.js';
import { engine } from '../testing/graph-writing.js';
import { declareOutput, normals } from '../testing/tiny-models.js';
import { OPTIMIZER_DEFAULTS, OPTIMIZERS, split, type OptimizerName, type OptimizerSettings } from './optimizers.js';
import type { Parameter } from './parameters.js';

const STEPS = 20;
/** A matrix of three numbers and a bias of two. */
const LAYOUT: Parameter[] = [
  { name: 'w', dims: [3, 1], size: 3, decays: true },
  { name: 'b', dims: [2], size: 2, decays: false },
];
const SIZE = 5;
const START = [0.5, -1, 2, 0.1, -0.3];
/** Gradients of the steps, whatever the parameters are. */
const GRADIENTS = Array.from({ length: STEPS }, (_, t) => [...normals(SIZE, 40 + t)]);

/** Parameters after every step, by the engine. */
async function byEngine(
  name: OptimizerName,
  settings: OptimizerSettings,
  learningRate: number,
  decay: readonly number[] | undefined,
  start: readonly number[] = START,
): Promise<number[][]> {
  const optimizer = OPTIMIZERS[name];
  const graph = new Graph(emptyModel(17));
  const input = (text: string, dims: readonly number[]): Value =>
    graph.addInput(tensorInfo(text, DataType.FLOAT, dims));
  const [parameters, gradient, rate] = [input('p', [SIZE]), input('g', [SIZE]), input('lr', [])];
  const states = Array.from({ length: optimizer.states }, (_, i) => input(`s${String(i)}`, [SIZE]));
  const scalars = optimizer.scalars(1, settings).map((_, i) => input(`k${String(i)}`, []));
  const result = optimizer.update({
    ...{ graph, parameters, gradient, states, learningRate: rate, scalars, layout: LAYOUT, settings },
    decay: decay && graph.addInitializer(makeTensor('decay', DataType.FLOAT, [SIZE], [...decay])),
  });
  for (const value of [result.parameters, ...result.states]) declareOutput(graph, value, [SIZE]);
  const session = await engine.createSession(toBytes(graph.toModel()));
  const vector = (values: Float32Array) => ({ type: 'float32' as const, dims: [values.length], data: values });
  const scalar = (value: number) => ({ type: 'float32' as const, dims: [], data: Float32Array.of(value) });
  let current = Float32Array.from(start);
  let held = states.map(() => new Float32Array(SIZE));
  const path: number[][] = [];
  for (let t = 1; t <= STEPS; t++) {
    const feeds: Feeds = {
      p: vector(current),
      g: vector(Float32Array.from(GRADIENTS[t - 1]!)),
      lr: scalar(learningRate),
    };
    held.forEach((state, i) => (feeds[`s${String(i)}`] = vector(state)));
    optimizer.scalars(t, settings).forEach((value, i) => (feeds[`k${String(i)}`] = scalar(value)));
    const results = await session.run(feeds);
    current = results[result.parameters.name]!.data as Float32Array<ArrayBuffer>;
    held = result.states.map((state) => results[state.name]!.data as Float32Array<ArrayBuffer>);
    path.push([...current]);
  }
  await session.release();
  return path;
}

type Step = (p: readonly number[], g: readonly number[], t: number) => number[];

/** Parameters after every step, by a published recurrence. */
function byRecurrence(step: Step, start: readonly number[] = START): number[][] {
  let p = [...start];
  return GRADIENTS.map((g, i) => (p = step(p, g, i + 1)));
}

function expectSame(actual: readonly number[][], expected: readonly number[][]): void {
  expected.forEach((row, t) => {
    row.forEach((value, i) => {
      expect(Math.abs(actual[t]![i]! - value), `step ${String(t + 1)}, element ${String(i)}`).toBeLessThan(1e-5);
    });
  });
}

/** PyTorch's SGD, with decay apart from the gradient. */
function sgdStep(lr: number, momentum: number, nesterov: boolean, decay: readonly number[]): Step {
  let v = START.map(() => 0);
  return (p, g) => {
    v = v.map((x, i) => momentum * x + g[i]!);
    const d = nesterov ? v.map((x, i) => g[i]! + momentum * x) : v;
    return p.map((x, i) => x - lr * (d[i]! + decay[i]! * x));
  };
}

/** Bias-corrected direction of Kingma and Ba, algorithm 1. */
function adamDirection({ beta1, beta2, epsilon }: OptimizerSettings): (g: readonly number[], t: number) => number[] {
  let m = START.map(() => 0);
  let v = START.map(() => 0);
  return (g, t) => {
    m = m.map((x, i) => beta1 * x + (1 - beta1) * g[i]!);
    v = v.map((x, i) => beta2 * x + (1 - beta2) * g[i]! ** 2);
    return m.map((x, i) => x / (1 - beta1 ** t) / (Math.sqrt(v[i]! / (1 - beta2 ** t)) + epsilon));
  };
}

const norm = (values: readonly number[]): number => Math.hypot(...values);
const NO_DECAY = [0, 0, 0, 0, 0];
const DECAY = [0.1, 0.1, 0.1, 0, 0];

describe.each([undefined, DECAY])('with weight decay %s', (decay) => {
  const each = decay ?? NO_DECAY;

  it.each([
    [0.9, true],
    [0.9, false],
    [0.5, true],
    [0, false],
  ])('sgd with momentum %s, nesterov %s', async (momentum, nesterov) => {
    const settings = { ...OPTIMIZER_DEFAULTS, momentum, nesterov };
    expectSame(await byEngine('sgd', settings, 0.05, decay), byRecurrence(sgdStep(0.05, momentum, nesterov, each)));
  });

  it('adamw decays apart from the moments', async () => {
    const direction = adamDirection(OPTIMIZER_DEFAULTS);
    const step: Step = (p, g, t) => {
      const d = direction(g, t);
      return p.map((x, i) => x - 0.02 * d[i]! - 0.02 * each[i]! * x);
    };
    expectSame(await byEngine('adamw', OPTIMIZER_DEFAULTS, 0.02, decay), byRecurrence(step));
  });

  it('adam decays as part of the gradient', async () => {
    const direction = adamDirection(OPTIMIZER_DEFAULTS);
    const step: Step = (p, g, t) => {
      const d = direction(
        g.map((x, i) => x + each[i]! * p[i]!),
        t,
      );
      return p.map((x, i) => x - 0.02 * d[i]!);
    };
    expectSame(await byEngine('adam', OPTIMIZER_DEFAULTS, 0.02, decay), byRecurrence(step));
  });

  it.each([
    ['parameters of every size', START],
    ['a bias of zeros, which has no size to go by', [0.5, -1, 2, 0, 0]],
  ])('lamb scales the step of every tensor: %s', async (_, start) => {
    const direction = adamDirection(OPTIMIZER_DEFAULTS);
    const step: Step = (p, g, t) => {
      const r = direction(g, t).map((x, i) => x + each[i]! * p[i]!);
      const ratio = (from: number, to: number): number => {
        const [size, change] = [norm(p.slice(from, to)), norm(r.slice(from, to))];
        return size > 0 && change > 0 ? size / change : 1;
      };
      const ratios = [ratio(0, 3), ratio(0, 3), ratio(0, 3), ratio(3, 5), ratio(3, 5)];
      return p.map((x, i) => x - 0.02 * ratios[i]! * r[i]!);
    };
    expectSame(await byEngine('lamb', OPTIMIZER_DEFAULTS, 0.02, decay, start), byRecurrence(step, start));
  });
});

describe('split', () => {
  it('gives one vector per parameter and is undone by concat', async () => {
    const graph = new Graph(emptyModel(17));
    const x = graph.addInitializer(makeTensor('x', DataType.FLOAT, [0], []));
    graph.feed(x, tensorInfo('x', DataType.FLOAT, [SIZE]));
    const parts = split(graph, x, LAYOUT);
    declareOutput(graph, parts[1]!, [2]);
    declareOutput(graph, concat(graph, parts, 0), [SIZE]);
    const session = await engine.createSession(toBytes(graph.toModel()));
    const results = Object.values(
      await session.run({ x: { type: 'float32', dims: [SIZE], data: Float32Array.from(START) } }),
    );
    await session.release();
    expect(results.map(({ data }) => [...data])).toEqual([
      [...Float32Array.from([0.1, -0.3])],
      [...Float32Array.from(START)],
    ]);
    expect(split(graph, x, LAYOUT.slice(0, 1))).toEqual([x]);
  });
});
