/** Norms of gradients against central differences in float64, closed forms, and what happens without a gradient. */
import { describe, expect, it } from 'vitest';
import type { ModelProto } from 'onnx-buf';
import { FlowCompressError } from '../errors.js';
import type { Batch } from '../data/dataset.js';
import { intAttribute } from '../onnx/attributes.js';
import { Graph, type Value } from '../onnx/graph.js';
import { findLayers } from '../onnx/layers.js';
import { readFloats } from '../onnx/tensor.js';
import { reduce } from '../onnx/ops.js';
import type { HostTensor } from '../runtime/engine.js';
import { takeRows } from '../runtime/rows.js';
import { traceShapes } from '../runtime/trace.js';
import { Builder } from '../testing/flow-models.js';
import { engine } from '../testing/graph-writing.js';
import { array } from '../testing/reference/array.js';
import { evaluate } from '../testing/reference/evaluate.js';
import { normals } from '../testing/tiny-models.js';
import { gradientNorms, type GradientSource } from './gradient-norms.js';

interface Given {
  readonly model: ModelProto;
  readonly samples: number;
  /** Of one sample of the input x. */
  readonly dims: readonly number[];
  readonly labels?: readonly number[];
  readonly scores?: string;
  readonly fixedBatch?: number;
  readonly mode?: 'corrected' | 'reference';
  readonly seed?: number;
  readonly signal?: AbortSignal;
}

const sizeOf = (dims: readonly number[]): number => dims.reduce((a, b) => a * b, 1);

function samplesOf({ samples, dims }: Given): HostTensor {
  return { type: 'float32', dims: [samples, ...dims], data: normals(samples * sizeOf(dims), 31) };
}

/** Norms, warnings and the sizes of the batches that were read. */
async function normsOf(given: Given): Promise<{ norms: Map<string, number>; warnings: string[]; read: number[] }> {
  const { model, samples, dims, labels, fixedBatch } = given;
  const x = samplesOf(given);
  const size = sizeOf(dims);
  const warnings: string[] = [];
  const read: number[] = [];
  const source: GradientSource = {
    engine,
    model,
    layers: findLayers(new Graph(model)),
    shapes: await traceShapes(engine, model, takeRows({ x }, fixedBatch ?? 1)),
    scores: given.scores,
    fixedBatch,
    calibrationSamples: samples,
    control: { signal: given.signal },
    warn: (message) => warnings.push(message),
    settings: { seed: given.seed ?? 0, sensitivityMode: given.mode ?? 'corrected' },
    async *calibration({ limit = samples, rows = 32 } = {}): AsyncGenerator<Batch> {
      const step = fixedBatch ?? rows;
      for (let from = 0; from < limit; from += step) {
        const to = Math.min(from + step, limit);
        const data = (x.data as Float32Array).slice(from * size, to * size);
        const feeds = { x: { type: 'float32' as const, dims: [to - from, ...dims], data } };
        read.push(to - from);
        yield await Promise.resolve({
          feeds: fixedBatch === undefined ? feeds : takeRows(feeds, fixedBatch),
          size: to - from,
          ...(labels && { labels: Int32Array.from(labels.slice(from, to)) }),
        });
      }
    },
  };
  return { norms: await gradientNorms(source), warnings, read };
}

const LABELS = [0, 2, 1, 1, 0, 2, 2];

/** x [N, 2, 4, 4] -> Conv, Relu, Gemm -> three classes; a dense layer is used twice in between. */
function classifier(end: 'logits' | 'Softmax' | 'LogSoftmax' | 'ratio' = 'logits'): ModelProto {
  const b = new Builder(17, 3);
  const x = b.input('x', [2, 4, 4]);
  const flat = b.op('Flatten', [b.op('Relu', [b.conv(x, [2, 2, 3, 3], 2)])]);
  const shared = b.weight([8, 8], 0.4);
  const once = b.op('Tanh', [b.dense(flat, 8, 8, shared)]);
  const twice = b.op('Tanh', [b.dense(once, 8, 8, shared)]);
  const logits = b.op('Gemm', [twice, b.weight([8, 3]), b.weight([3])]);
  if (end === 'logits') return b.done(logits);
  if (end !== 'ratio') return b.done(b.op(end, [logits], [intAttribute('axis', 1)]));
  // A softmax written out.
  const powers = b.op('Exp', [logits]);
  const sum = b.op('Unsqueeze', [reduce(b.graph, 'ReduceSum', powers, [1]), b.ints([1])]);
  return b.done(b.op('Div', [powers, sum]));
}

function outputOf(model: ModelProto): string {
  return model.graph!.output[0]!.name;
}

/** By layer: norm of the central differences of the mean cross-entropy over samples `from` to `to`. */
function differences(model: ModelProto, given: Given, from: number, to: number): Map<string, number> {
  const graph = new Graph(model);
  const size = sizeOf(given.dims);
  const x = array([to - from, ...given.dims], samplesOf(given).data.slice(from * size, to * size) as Float32Array);
  const output = outputOf(model);
  const lossWith = (weight: string, dims: readonly number[], values: readonly number[]): number => {
    const { data } = evaluate(model, { x, [weight]: array(dims, values) }).get(output)!;
    let loss = 0;
    for (let n = 0; n < to - from; n++) {
      const row = Array.from(data.slice(3 * n, 3 * n + 3));
      loss += Math.log(row.reduce((sum, z) => sum + Math.exp(z), 0)) - row[given.labels![from + n]!]!;
    }
    return loss / (to - from);
  };
  return new Map(
    findLayers(graph).map((layer) => {
      const values = Array.from(readFloats(graph.constant(layer.weight)!));
      const squares = values.map((w, i) => {
        const at = (step: number): number => lossWith(layer.weight.name, layer.dims, values.with(i, w + step));
        return ((at(1e-5) - at(-1e-5)) / 2e-5) ** 2;
      });
      return [layer.name, Math.sqrt(squares.reduce((a, b) => a + b, 0))];
    }),
  );
}

function expectClose(found: ReadonlyMap<string, number>, expected: ReadonlyMap<string, number>): void {
  expect([...found.keys()]).toEqual([...expected.keys()]);
  for (const [name, norm] of expected) {
    expect(norm).toBeGreaterThan(1e-3);
    expect(Math.abs(found.get(name)! / norm - 1), name).toBeLessThan(1e-4);
  }
}

describe('gradientNorms with labels', () => {
  const given: Given = { model: classifier(), samples: 7, dims: [2, 4, 4], labels: LABELS };
  const ofAll = differences(given.model, given, 0, 7);

  it('are those of central differences, a weight that two layers share being one', async () => {
    const { norms, warnings } = await normsOf({ ...given, scores: outputOf(given.model) });
    expectClose(norms, ofAll);
    const [, first, second] = [...norms.values()];
    expect(first).toBe(second);
    expect(warnings).toEqual([]);
  });

  it('are means over whole batches', async () => {
    const { norms, read } = await normsOf({ ...given, scores: outputOf(given.model), fixedBatch: 3 });
    expect(read.slice(-2)).toEqual([3, 3]);
    const [a, b] = [differences(given.model, given, 0, 3), differences(given.model, given, 3, 6)];
    expectClose(norms, new Map([...a].map(([name, norm]) => [name, (norm + b.get(name)!) / 2])));
  });

  it('leave the rows out that pad a batch', async () => {
    const few = { ...given, samples: 3 };
    const { norms } = await normsOf({ ...few, scores: outputOf(given.model), fixedBatch: 5 });
    expectClose(norms, differences(given.model, few, 0, 3));
  });

  it.each(['Softmax', 'LogSoftmax', 'ratio'] as const)('are the same behind a %s', async (end) => {
    const model = classifier(end);
    const { norms } = await normsOf({ ...given, model, scores: outputOf(model) });
    const expected = [...ofAll.values()];
    [...norms.values()].forEach((norm, i) => {
      expect(Math.abs(norm / expected[i]! - 1)).toBeLessThan(1e-3);
    });
    expect(norms.size).toBe(expected.length);
  });

  it('read whole batches of at most 32 samples, and no more than 256', async () => {
    const model = new Builder();
    const linear = model.done(model.op('MatMul', [model.input('x', [4]), model.weight([4, 3])]));
    const scores = outputOf(linear);
    const reads = async (samples: number): Promise<number[]> => {
      const labels = Array.from({ length: samples }, (_, i) => i % 3);
      return (await normsOf({ model: linear, samples, dims: [4], labels, scores })).read.slice(1);
    };
    expect(await reads(70)).toEqual([32, 32]);
    expect(await reads(300)).toEqual(new Array(8).fill(32));
  });
});

describe('gradientNorms without labels', () => {
  /** y = x W for one sample at a time, x being [N, 4] and W [4, 3]. */
  const b = new Builder(17, 9);
  const weight = b.weight([4, 3], 0.6);
  const linear = b.done(b.op('MatMul', [b.input('x', [4]), weight]));
  const given: Given = { model: linear, samples: 256, dims: [4], fixedBatch: 1 };
  const rows = Array.from({ length: 256 }, (_, n) => Array.from(samplesOf(given).data.slice(4 * n, 4 * n + 4), Number));
  const outputs = rows.map((x) => [0, 1, 2].map((c) => x.reduce((sum, v, k) => sum + v * weightAt(k, c), 0)));
  const norm = (x: readonly number[]): number => Math.hypot(...x);
  const meanOver = (f: (x: number[], y: number[]) => number): number =>
    rows.reduce((sum, x, n) => sum + f(x, outputs[n]!), 0) / rows.length;
  const only = ({ norms }: { norms: Map<string, number> }): number => [...norms.values()][0]!;

  function weightAt(k: number, c: number): number {
    return readFloats(weight.initializer!)[3 * k + c]!;
  }

  it('draw labels from the probabilities of the network', async () => {
    const expected = meanOver((x, y) => {
      const powers = y.map(Math.exp);
      const p = powers.map((power) => power / powers.reduce((a, c) => a + c, 0));
      // dLoss / dW = x (p - e_y)^T, y being drawn from p.
      return p.reduce((sum, py, drawn) => sum + py * norm(p.map((pc, c) => pc - (c === drawn ? 1 : 0))) * norm(x), 0);
    });
    const found = only(await normsOf({ ...given, scores: outputOf(linear) }));
    expect(Math.abs(found / expected - 1)).toBeLessThan(0.04);
    // The most likely label, or a uniform one, would be well outside.
    const likely = meanOver((x, y) => {
      const powers = y.map(Math.exp);
      const p = powers.map((power) => power / powers.reduce((a, c) => a + c, 0));
      const top = p.indexOf(Math.max(...p));
      return norm(p.map((pc, c) => pc - (c === top ? 1 : 0))) * norm(x);
    });
    expect(Math.abs(likely / expected - 1)).toBeGreaterThan(0.1);
  });

  it('are the same in every run with a seed, and others with another', async () => {
    const first = only(await normsOf({ ...given, scores: outputOf(linear) }));
    expect(only(await normsOf({ ...given, scores: outputOf(linear) }))).toBe(first);
    expect(only(await normsOf({ ...given, scores: outputOf(linear), seed: 1 }))).not.toBe(first);
  });

  it('project outputs that are no scores on random signs: ||x r^T|| / sqrt(3) = ||x|| for one sample', async () => {
    expect(only(await normsOf(given))).toBeCloseTo(meanOver(norm), 4);
  });

  it('let random signs of different samples cancel, but not those of the same element', async () => {
    // ||sum_n x_n r_n^T||^2 has the mean sum_n ||x_n||^2: the root is near 1 / sqrt(32) of one sample's norm.
    const whole = only(await normsOf({ ...given, fixedBatch: 32 }));
    expect(whole).toBeGreaterThan(0.9 * Math.sqrt(meanOver((x) => norm(x) ** 2) / 32));
    expect(whole).toBeLessThan(1.1 * Math.sqrt(meanOver((x) => norm(x) ** 2) / 32));
  });

  it.each(['drawn labels', 'random signs', 'squares'])('leave the rows out that pad a batch: %s', async (kind) => {
    const scores = kind === 'drawn labels' ? outputOf(linear) : undefined;
    const mode = kind === 'squares' ? 'reference' : 'corrected';
    const alone = only(await normsOf({ ...given, samples: 1, scores, mode }));
    expect(alone).toBeGreaterThan(0.1);
    expect(only(await normsOf({ ...given, samples: 1, scores, mode, fixedBatch: 4 }))).toBeCloseTo(alone, 5);
  });

  it('take the mean square of the outputs in the reference: 2 ||x|| ||y|| / 3', async () => {
    const found = await normsOf({ ...given, scores: outputOf(linear), mode: 'reference' });
    expect(only(found)).toBeCloseTo(
      meanOver((x, y) => (2 * norm(x) * norm(y)) / 3),
      4,
    );
    expect(only(await normsOf({ ...given, mode: 'reference' }))).toBe(only(found));
  });
});

describe('gradientNorms where there is no gradient', () => {
  /** Layers a, b and c in a row, with an operator without a rule, or one that is constant, behind `a`, and a shortcut around it. */
  function interrupted(op: 'Shrink' | 'Round', shortcut: boolean): { model: ModelProto; scores: string } {
    const b = new Builder(17, 4);
    const layer = (x: Value): Value => b.op('MatMul', [x, b.weight([4, 4])]);
    const a = layer(b.input('x', [4]));
    const cut = b.op(op, [a]);
    const model = b.done(layer(b.op('Relu', [layer(shortcut ? b.op('Add', [cut, a]) : cut)])));
    return { model, scores: outputOf(model) };
  }
  const given = { samples: 6, dims: [4], labels: [0, 1, 2, 3, 0, 1] };

  it.each([true, false])('names the node and leaves out what lies before it (shortcut: %s)', async (shortcut) => {
    const { model, scores } = interrupted('Shrink', shortcut);
    const { norms, warnings } = await normsOf({ ...given, model, scores });
    const [, ...behind] = findLayers(new Graph(model)).map((layer) => layer.name);
    expect([...norms.keys()]).toEqual(behind);
    expect(warnings).toEqual([
      expect.stringMatching(
        /^The sensitivity of layer MatMul_\d is without gradients\. Shrink_\d: .* rule for Shrink\.$/,
      ),
    ]);
  });

  it('says so where nothing depends on a layer', async () => {
    const { norms, warnings } = await normsOf({ ...given, ...interrupted('Round', false) });
    expect(norms.size).toBe(2);
    expect(warnings).toEqual([expect.stringContaining('The loss does not depend on its weights')]);
  });

  it('warns where no output can be differentiated', async () => {
    const b = new Builder();
    const scores = b.op('MatMul', [b.input('x', [4]), b.weight([4, 3])]);
    const model = b.done(b.op('ArgMax', [scores], [intAttribute('axis', 1)]));
    const { norms, warnings } = await normsOf({ samples: 6, dims: [4], model });
    expect(norms.size).toBe(0);
    expect(warnings).toEqual([expect.stringContaining('no output of the model is float32')]);
  });

  it('stops when it is interrupted', async () => {
    const run = normsOf({ ...given, ...interrupted('Round', false), signal: AbortSignal.abort() });
    await expect(run).rejects.toThrow(FlowCompressError);
    await expect(run).rejects.toMatchObject({ code: 'aborted' });
  });
});
