/** Traces against second differences in float64, by the reference evaluator. */
import { describe, expect, it } from 'vitest';
import type { ModelProto } from 'onnx-buf';
import type { Batch } from '../data/dataset.js';
import { Graph } from '../onnx/graph.js';
import { findLayers } from '../onnx/layers.js';
import { readFloats } from '../onnx/tensor.js';
import { traceShapes } from '../runtime/trace.js';
import { Builder } from '../testing/flow-models.js';
import { engine } from '../testing/graph-writing.js';
import { array } from '../testing/reference/array.js';
import { evaluate } from '../testing/reference/evaluate.js';
import { normals } from '../testing/tiny-models.js';
import { meanTraces } from './hessian-traces.js';
import { weightUnits } from './units.js';

const [SAMPLES, INPUTS, CLASSES] = [6, 4, 3];
const X = normals(SAMPLES * INPUTS, 31);
const LABELS = [0, 2, 1, 1, 0, 2];

/** x [N, 4] -> Gemm, Tanh, a dense layer that is used twice, Gemm -> three classes. */
function classifier(): ModelProto {
  const b = new Builder(17, 3);
  const first = b.op('Tanh', [b.op('Gemm', [b.input('x', [INPUTS]), b.weight([INPUTS, 3], 0.7), b.weight([3])])]);
  const shared = b.weight([3, 3], 0.6);
  const once = b.op('Tanh', [b.dense(first, 3, 3, shared)]);
  const twice = b.op('Tanh', [b.dense(once, 3, 3, shared)]);
  return b.done(b.op('Gemm', [twice, b.weight([3, CLASSES], 0.8), b.weight([CLASSES])]));
}

const MODEL = classifier();
const OUTPUT = MODEL.graph!.output[0]!.name;

async function tracesOf(
  directions: number,
  given: { labels?: readonly number[]; scores?: string; rows?: number; seed?: number },
) {
  const graph = new Graph(MODEL);
  const units = weightUnits(findLayers(graph));
  const traces = await meanTraces(
    graph,
    units,
    {
      ...{
        engine,
        model: MODEL,
        scores: given.scores,
        fixedBatch: given.rows,
        calibrationSamples: SAMPLES,
        control: {},
      },
      shapes: await traceShapes(engine, MODEL, {
        x: { type: 'float32', dims: [given.rows ?? 1, INPUTS], data: X.slice(0, (given.rows ?? 1) * INPUTS) },
      }),
      settings: { seed: given.seed ?? 0 },
      async *calibration({ rows = SAMPLES } = {}): AsyncGenerator<Batch> {
        const step = given.rows ?? rows;
        for (let from = 0; from < SAMPLES; from += step) {
          const data = X.slice(from * INPUTS, (from + step) * INPUTS);
          yield await Promise.resolve({
            feeds: { x: { type: 'float32' as const, dims: [step, INPUTS], data } },
            size: step,
            ...(given.labels && { labels: Int32Array.from(given.labels.slice(from, from + step)) }),
          });
        }
      },
    },
    { directions },
  );
  return new Map(units.map(({ layer }, i) => [layer.weight.name, traces[i]!]));
}

/** Mean over the weights of the second differences of a loss over all samples. */
function exact(lossOf: (logits: readonly number[], sample: number) => number): Map<string, number> {
  const graph = new Graph(MODEL);
  return new Map(
    weightUnits(findLayers(graph)).map(({ layer }) => {
      const values = Array.from(readFloats(graph.constant(layer.weight)!));
      const lossWith = (weights: readonly number[]): number => {
        const fed = { x: array([SAMPLES, INPUTS], X), [layer.weight.name]: array(layer.dims, weights) };
        const { data } = evaluate(MODEL, fed).get(OUTPUT)!;
        let loss = 0;
        for (let n = 0; n < SAMPLES; n++) loss += lossOf(Array.from(data.slice(CLASSES * n, CLASSES * (n + 1))), n);
        return loss / SAMPLES;
      };
      const step = 1e-4;
      const trace = values.reduce((sum, w, i) => {
        const at = (by: number): number => lossWith(values.with(i, w + by));
        return sum + (at(step) - 2 * at(0) + at(-step)) / step ** 2;
      }, 0);
      return [layer.weight.name, trace / values.length];
    }),
  );
}

const logSumExp = (z: readonly number[]): number => Math.log(z.reduce((sum, v) => sum + Math.exp(v), 0));

describe('meanTraces', () => {
  it('estimates the trace of the Hessian of the labelled loss, of shared weights too', async () => {
    const expected = exact((z, n) => logSumExp(z) - z[LABELS[n]!]!);
    const found = await tracesOf(3000, { labels: LABELS, scores: OUTPUT });
    expect([...found.keys()]).toEqual([...expected.keys()]);
    for (const [name, trace] of expected) expect(found.get(name)! / trace, name).toBeCloseTo(1, 1);
    // The layers are told apart by it.
    expect(Math.max(...expected.values()) / Math.min(...expected.values())).not.toBeCloseTo(1, 0);
  });

  it('is a mean over batches', async () => {
    const whole = await tracesOf(3000, { labels: LABELS, scores: OUTPUT });
    const parts = await tracesOf(3000, { labels: LABELS, scores: OUTPUT, rows: 2 });
    for (const [name, trace] of whole) expect(Math.abs(parts.get(name)! / trace - 1), name).toBeLessThan(0.1);
  });

  it('takes labels that the network draws where there are none: the same ones on both sides of a difference', async () => {
    const labelled = await tracesOf(8, { labels: LABELS, scores: OUTPUT });
    const drawn = await tracesOf(8, { scores: OUTPUT });
    const again = await tracesOf(8, { scores: OUTPUT });
    expect([...drawn]).toEqual([...again]);
    expect([...drawn]).not.toEqual([...labelled]);
    // Other labels on one side would leave a difference of gradients divided by the step: hundreds of times as much.
    for (const [name, trace] of drawn) expect(Math.abs(trace) / Math.abs(labelled.get(name)!), name).toBeLessThan(10);
  });

  it('hangs on the seed, and refuses models without class scores', async () => {
    const [one, other] = [
      await tracesOf(2, { labels: LABELS, scores: OUTPUT }),
      await tracesOf(2, { labels: LABELS, scores: OUTPUT, seed: 1 }),
    ];
    expect([...one]).not.toEqual([...other]);
    await expect(tracesOf(2, {})).rejects.toMatchObject({
      code: 'unsupported',
      message: expect.stringContaining('class scores') as string,
    });
  });
});
