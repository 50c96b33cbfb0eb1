import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { emptyModel, Graph } from '../onnx/graph.js';
import { tensorInfo } from '../onnx/value-info.js';
import { checkGradients, randomArray } from '../testing/check-gradients.js';
import { engine } from '../testing/graph-writing.js';
import { array, type NdArray } from '../testing/reference/array.js';
import { evaluate } from '../testing/reference/evaluate.js';
import { declareOutput } from '../testing/tiny-models.js';
import { DataType } from '../onnx/dtypes.js';
import { toBytes } from '../onnx/to-bytes.js';
import type { ModelProto } from 'onnx-buf';
import { LOSSES, meanLoss, type LossName } from './losses.js';

/** Inputs z and t, output `loss`. */
function lossModel(name: LossName, dims: readonly number[], temperature = 1, opset = 17, weighted = false): ModelProto {
  const graph = new Graph(emptyModel(opset));
  const [output, target] = ['z', 't'].map((input) => graph.addInput(tensorInfo(input, DataType.FLOAT, dims)));
  const weights = weighted ? graph.addInput(tensorInfo('w', DataType.FLOAT, dims.slice(0, 1))) : undefined;
  const loss = meanLoss(name, { graph, output: output!, target: target!, rank: dims.length, weights, temperature });
  declareOutput(graph, loss, []);
  return graph.toModel();
}

function lossOf(name: LossName, z: NdArray, t: NdArray, temperature?: number, opset?: number): number {
  const model = lossModel(name, z.dims, temperature, opset);
  return evaluate(model, { z, t }).get(model.graph!.output[0]!.name)!.data[0]!;
}

const rowsOf = ({ dims, data }: NdArray): number[][] => {
  const size = data.length / dims[0]!;
  return Array.from({ length: dims[0]! }, (_, n) => [...data.subarray(n * size, (n + 1) * size)]);
};
const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);
const mean = (values: readonly number[]): number => sum(values) / values.length;
const softmax = (row: readonly number[]): number[] => {
  const exps = row.map(Math.exp);
  return exps.map((e) => e / sum(exps));
};
const elements = (z: NdArray, t: NdArray, f: (z: number, t: number) => number): number =>
  mean([...z.data].map((v, i) => f(v, t.data[i]!)));

const FORMULAS: Record<LossName, (z: NdArray, t: NdArray, temperature: number) => number> = {
  'cross-entropy': (z, t) => {
    const target = rowsOf(t);
    return mean(rowsOf(z).map((row, n) => -sum(softmax(row).map((q, c) => target[n]![c]! * Math.log(q)))));
  },
  kl: (z, t, temperature) => {
    const cooled = (row: readonly number[]): number[] => softmax(row.map((v) => v / temperature));
    const teacher = rowsOf(t).map(cooled);
    return mean(
      rowsOf(z).map((row, n) => {
        const q = cooled(row);
        return temperature ** 2 * sum(teacher[n]!.map((p, c) => p * Math.log(p / q[c]!)));
      }),
    );
  },
  mse: (z, t) => elements(z, t, (a, b) => (a - b) ** 2),
  relative: (z, t) => elements(z, t, (a, b) => (a - b) ** 2) / mean([...t.data].map((v) => v * v)),
  l1: (z, t) => elements(z, t, (a, b) => Math.abs(a - b)),
  huber: (z, t) => elements(z, t, (a, b) => (Math.abs(a - b) <= 1 ? 0.5 * (a - b) ** 2 : Math.abs(a - b) - 0.5)),
  bce: (z, t) =>
    elements(z, t, (a, b) => {
      const p = 1 / (1 + Math.exp(-a));
      return -(b * Math.log(p) + (1 - b) * Math.log(1 - p));
    }),
  cosine: (z, t) => {
    const target = rowsOf(t);
    return mean(
      rowsOf(z).map((a, n) => {
        const b = target[n]!;
        return 1 - sum(a.map((v, i) => v * b[i]!)) / Math.sqrt(sum(a.map((v) => v * v)) * sum(b.map((v) => v * v)));
      }),
    );
  },
};
const NAMES = Object.keys(LOSSES) as LossName[];

/** Targets that the loss takes: rows of probabilities, numbers from 0 to 1, or any. */
function targetFor(name: LossName, dims: readonly number[], seed: number): NdArray {
  const t = randomArray(dims, seed);
  if (name === 'bce')
    return array(
      dims,
      t.data.map((v) => 1 / (1 + Math.exp(-v))),
    );
  return name === 'cross-entropy' ? array(dims, rowsOf(t).flatMap(softmax)) : t;
}

describe.each(NAMES)('%s', (name) => {
  it('is its formula, in old and new opsets', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 4 }),
        fc.integer({ min: 2, max: 5 }),
        fc.nat(1000),
        fc.constantFrom(1, 2, 4.5),
        fc.constantFrom(13, 17, 18),
        (samples, classes, seed, temperature, opset) => {
          const dims = [samples, classes];
          const [z, t] = [randomArray(dims, seed, 2), targetFor(name, dims, seed + 1)];
          const expected = FORMULAS[name](z, t, temperature);
          // Constants of the graph are float32, which shows in 1e-8.
          expect(Math.abs(lossOf(name, z, t, temperature, opset) - expected)).toBeLessThan(1e-6 * (1 + expected));
        },
      ),
      { numRuns: 20 },
    );
  });

  it('weighs the samples', () => {
    const dims = [3, 4];
    const [z, t] = [randomArray(dims, 8, 2), targetFor(name, dims, 9)];
    const w = array([3], [0.5, 2, 0]);
    const model = lossModel(name, dims, 2, 17, true);
    const row = (x: NdArray, n: number): NdArray => array([1, 4], x.data.slice(4 * n, 4 * n + 4));
    // What a relative error is relative to is the same for all samples.
    const kind = name === 'relative' ? 'mse' : name;
    const scale = name === 'relative' ? mean([...t.data].map((v) => v * v)) : 1;
    const expected = mean([0, 1, 2].map((n) => (w.data[n]! * FORMULAS[kind](row(z, n), row(t, n), 2)) / scale));
    expect(evaluate(model, { z, t, w }).get(model.graph!.output[0]!.name)!.data[0]).toBeCloseTo(expected, 6);
  });

  it('runs in ONNX Runtime', async () => {
    const dims = [3, 4];
    const [z, t] = [randomArray(dims, 5, 3), targetFor(name, dims, 6)];
    const session = await engine.createSession(toBytes(lossModel(name, dims, 2)));
    const host = ({ data }: NdArray) => ({ type: 'float32' as const, dims, data: Float32Array.from(data) });
    const [result] = Object.values(await session.run({ z: host(z), t: host(t) }));
    await session.release();
    expect(result!.dims).toEqual([]);
    expect(Number(result!.data[0])).toBeCloseTo(FORMULAS[name](z, t, 2), 4);
  });

  it('has the gradient of central differences', () => {
    for (const temperature of [1, 3]) {
      const dims = [3, 4];
      const [z, t] = [randomArray(dims, 11, 2), targetFor(name, dims, 12)];
      checkGradients(lossModel(name, dims, temperature), { z, t }, { wanted: ['z'] });
    }
  });
});

describe('losses', () => {
  it('take outputs with more axes: classes are axis 1', () => {
    const z = randomArray([2, 3, 2], 1);
    const t = randomArray([2, 3, 2], 2);
    const at = (x: NdArray, n: number, c: number, k: number): number => x.data[(n * 3 + c) * 2 + k]!;
    let expected = 0;
    for (const n of [0, 1])
      for (const k of [0, 1]) {
        const q = softmax([0, 1, 2].map((c) => at(z, n, c, k)));
        expected -= sum(q.map((v, c) => at(t, n, c, k) * Math.log(v))) / 2;
      }
    expect(lossOf('cross-entropy', z, t)).toBeCloseTo(expected, 6);
  });

  it('kl is zero, and cosine too, for equal outputs', () => {
    const z = randomArray([3, 4], 3);
    expect(lossOf('kl', z, z, 4)).toBeCloseTo(0, 9);
    expect(lossOf('cosine', z, z)).toBeCloseTo(0, 9);
  });

  it('cosine has a finite gradient for an output of zeros', async () => {
    const { differentiate } = await import('../autodiff/differentiate.js');
    const model = lossModel('cosine', [2, 3]);
    const given = { z: array([2, 3]), t: randomArray([2, 3], 4) };
    const shapes = new Map([...evaluate(model, given)].map(([name, { dims }]) => [name, dims]));
    const graph = new Graph(model);
    const gradient = differentiate(graph, graph.outputs[0]!, [graph.mustGet('z')], { shapes }).get(graph.mustGet('z'))!;
    declareOutput(graph, gradient, [2, 3]);
    expect(evaluate(graph.toModel(), given).get(gradient.name)!.data.every(Number.isFinite)).toBe(true);
  });

  it('huber is linear far out and squared near', () => {
    expect(lossOf('huber', array([1, 2], [3, 0.5]), array([1, 2]))).toBeCloseTo((2.5 + 0.125) / 2, 9);
  });
});
