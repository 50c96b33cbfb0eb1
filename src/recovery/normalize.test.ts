import { describe, expect, it } from 'vitest';
import { relativeDifference } from '../pruning/check-cut.js';
import { Graph } from '../onnx/graph.js';
import { readFloats } from '../onnx/tensor.js';
import { runOnce } from '../runtime/run-once.js';
import { traceShapes, traceValues } from '../runtime/trace.js';
import { engine, tensorFeed } from '../testing/graph-writing.js';
import { normalBatches, tinyResNet } from '../testing/tiny-models.js';
import { readParameters } from '../training/parameters.js';
import { floatStudent } from './float-student.js';
import { normalized } from './normalize.js';

const MODEL = tinyResNet();
const SAMPLES = 50;
const batches = () => normalBatches('x', [3, 8, 8], SAMPLES, 20);
const withNorms = async () =>
  normalized({
    ...{ engine, model: MODEL, batches, samples: SAMPLES },
    shapes: await traceShapes(engine, MODEL, { x: tensorFeed([1, 3, 8, 8]) }),
  });
const norms = (graph: Graph) => graph.nodes.filter((node) => node.is('BatchNormalization'));

describe('normalizing behind convolutions', () => {
  it('changes nothing that the model computes', async () => {
    const model = await withNorms();
    expect(norms(new Graph(model))).toHaveLength(3);
    const { feeds } = (await normalBatches('x', [3, 8, 8], 6, 6, 3).next()).value!;
    const [a, b] = [await runOnce(engine, MODEL, feeds), await runOnce(engine, model, feeds)];
    expect(relativeDifference(a['logits']!, b['logits'])).toBeLessThan(1e-5);
  });

  it('takes the statistics over all samples and positions', async () => {
    const graph = new Graph(await withNorms());
    const { feeds } = (await normalBatches('x', [3, 8, 8], SAMPLES, SAMPLES).next()).value!;
    const values = await traceValues(engine, MODEL, feeds, new Set(['stem.y']));
    const { data, dims } = values.get('stem.y')!;
    const [mean, variance] = [3, 4].map((i) => readFloats(norms(graph)[0]!.inputs[i]!.initializer!));
    for (let c = 0; c < dims[1]!; c++) {
      const own = [...(data as Float32Array)].filter((_, i) => Math.floor(i / 64) % dims[1]! === c);
      const average = own.reduce((sum, v) => sum + v, 0) / own.length;
      expect(mean![c]).toBeCloseTo(average, 4);
      expect(variance![c]).toBeCloseTo(own.reduce((sum, v) => sum + (v - average) ** 2, 0) / own.length, 3);
    }
  });

  it('leaves no trace in what the student gives back', async () => {
    const model = await withNorms();
    const student = floatStudent(model, 'updated');
    const flat = readParameters(student.model, student.parameters);
    const back = student.of(flat, { slots: [], values: new Float32Array() });
    expect(norms(new Graph(back))).toEqual([]);
    expect(new Graph(back).nodes.map(({ opType }) => opType)).toEqual(
      new Graph(MODEL).nodes.map(({ opType }) => opType),
    );
    const { feeds } = (await normalBatches('x', [3, 8, 8], 6, 6, 3).next()).value!;
    const [a, b] = [await runOnce(engine, MODEL, feeds), await runOnce(engine, back, feeds)];
    expect(relativeDifference(a['logits']!, b['logits'])).toBeLessThan(1e-5);
    // Again there is nothing but convolutions to normalize behind.
    expect(norms(new Graph(model)).length).toBeGreaterThan(0);
  });

  it('folds the running statistics that were learned, not those of the start', async () => {
    const model = await withNorms();
    const student = floatStudent(model, 'updated');
    const flat = readParameters(student.model, student.parameters);
    const mean = norms(new Graph(model))[0]!.inputs[3]!;
    const values = readFloats(mean.initializer!).map((v) => v + 1);
    const moved = student.of(flat, { slots: [{ name: mean.name, size: values.length }], values });
    const { feeds } = (await normalBatches('x', [3, 8, 8], 6, 6, 3).next()).value!;
    const [a, b] = [await runOnce(engine, MODEL, feeds), await runOnce(engine, moved, feeds)];
    expect(relativeDifference(a['logits']!, b['logits'])).toBeGreaterThan(1e-3);
  });
});
