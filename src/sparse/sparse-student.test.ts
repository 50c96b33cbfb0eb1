import { describe, expect, it } from 'vitest';
import type { ModelProto } from 'onnx-buf';
import { Graph } from '../onnx/graph.js';
import { findLayers, fromMatrix } from '../onnx/layers.js';
import { readFloats } from '../onnx/tensor.js';
import { dequantize } from '../quantization/round-layer.js';
import { simulate } from '../quantization/simulate.js';
import { runOnce } from '../runtime/run-once.js';
import { engine, info, op, tensorFeed, tinyModel, weights } from '../testing/graph-writing.js';
import { normals, tinyResNet } from '../testing/tiny-models.js';
import { readParameters, withParameters } from '../training/parameters.js';
import { openStepper, startVectors } from '../training/stepper.js';
import { buildTrainingGraph } from '../training/training-graph.js';
import { OPTIMIZER_DEFAULTS } from '../training/optimizers.js';
import { magnitudeMasks } from './magnitude.js';
import { sparseStudent, type ChooseMasks, type SparseStudent } from './sparse-student.js';

const choose: ChooseMasks = (own, sparsity) => magnitudeMasks(own, sparsity, { scope: 'global', measure: 'plain' });
const PRUNED = new Set(['block.a.w', 'block.b.w']);
const MODEL = tinyResNet();
const x = tensorFeed([4, 3, 8, 8]);

const student = (sparsity: number): SparseStudent => sparseStudent(MODEL, PRUNED, sparsity, choose);
const startOf = ({ model, parameters }: SparseStudent): Float32Array => readParameters(model, parameters);
const logits = async (model: ModelProto): Promise<Float32Array> =>
  (await runOnce(engine, model, { x }))['logits']!.data as Float32Array;

function expectClose(a: Float32Array, b: Float32Array, tolerance: number): void {
  const size = Math.max(...b.map(Math.abs));
  a.forEach((v, i) => expect(Math.abs(v - b[i]!)).toBeLessThan(tolerance * size));
}

/** Values of one parameter. */
function part({ parameters }: SparseStudent, flat: Float32Array, name: string): Float32Array {
  let at = 0;
  for (const slot of parameters) {
    if (slot.name === name) return flat.subarray(at, at + slot.size);
    at += slot.size;
  }
  throw new Error(`There is no parameter ${name}.`);
}

const zeros = (values: ArrayLike<number>): number => Array.from(values).filter((v) => v === 0).length;

describe('the sparse student', () => {
  it('begins as the model that it was made of', async () => {
    const { model, parameters } = student(0.5);
    expect(parameters.map(({ name }) => name)).toEqual([
      ...['stem.w weight', 'stem.b bias', 'block.a.w weight', 'block.a.w mask', 'block.a.b bias'],
      ...['block.b.w weight', 'block.b.w mask', 'block.b.b bias', 'head.w weight', 'head.b bias'],
    ]);
    expectClose(await logits(model), await logits(MODEL), 1e-5);
  });

  it('computes what the file of its parameters computes, wherever they went', async () => {
    const made = student(0.75);
    const start = startOf(made);
    const noise = normals(start.length, 9, 0.2);
    const flat = made.pruned(
      start.map((v, i) => v + noise[i]!),
      0.75,
    );
    const plan = made.of(flat);
    const [a, b] = [...PRUNED].map((_, i) => plan.get(['block.a', 'block.b'][i]!)!.codes);
    // Among those that are left a few round to 0.
    expect(zeros(a!) + zeros(b!)).toBeGreaterThanOrEqual(0.75 * (a!.length + b!.length));
    expect(zeros(a!) + zeros(b!)).toBeLessThan(0.77 * (a!.length + b!.length));
    const file = simulate(MODEL, { weights: plan, activations: new Map(), int8: new Set() });
    expectClose(await logits(withParameters(made.model, made.parameters, flat)), await logits(file), 0.02);
    const graph = new Graph(MODEL);
    for (const layer of findLayers(graph)) {
      const rounded = fromMatrix(layer, dequantize(layer, plan.get(layer.name)!));
      const peak = Math.max(...readFloats(graph.constant(layer.weight)!).map(Math.abs));
      expect(Math.max(...rounded.map(Math.abs))).toBeLessThan(3 * peak);
    }
  });

  it('makes files of the final sparsity on the way there', () => {
    const made = student(0.9);
    const halfway = made.pruned(startOf(made), 0.3);
    const mask = [...PRUNED].flatMap((name) => [...part(made, halfway, `${name} mask`)]);
    expect(zeros(mask)).toBe(Math.round(0.3 * mask.length));
    const plan = made.of(halfway);
    const codes = [...plan.get('block.a')!.codes, ...plan.get('block.b')!.codes];
    expect(zeros(codes)).toBeGreaterThanOrEqual(Math.round(0.9 * codes.length));
    expect(zeros(plan.get('head')!.codes)).toBeLessThan(5);
    expect(part(made, halfway, 'block.a.w mask')).toEqual(
      part(made, made.pruned(halfway, 0.1), 'block.a.w mask').map((m, i) =>
        Math.min(m, part(made, halfway, 'block.a.w mask')[i]!),
      ),
    );
  });

  it('moves the weights that are left and no others', async () => {
    const made = student(0.5);
    const settings = OPTIMIZER_DEFAULTS;
    const feedsFor = (rows: number): { x: ReturnType<typeof tensorFeed> } => ({ x: tensorFeed([rows, 3, 8, 8]) });
    const graph = await buildTrainingGraph(
      engine,
      made.model,
      {
        ...{ loss: 'mse', output: 'logits', batchSize: 4, parameters: made.parameters, temperature: 1, seed: 0 },
        ...{ optimizer: 'adamw', optimizerSettings: settings, weightDecay: 0, accumulate: 1, batchNorm: 'frozen' },
      },
      feedsFor,
    );
    const first = startVectors(made.model, made.parameters, graph);
    const begin = made.pruned(first.parameters, 0.5);
    const stepper = await openStepper(engine, graph, { name: 'adamw', settings }, { ...first, parameters: begin });
    try {
      const target = { type: 'float32', dims: [4, 5], data: normals(20, 3) } as const;
      for (let i = 0; i < 3; i++) await stepper.step([{ feeds: { x }, target }], 0.01);
      const after = stepper.vectors.parameters;
      for (const name of PRUNED) {
        const mask = part(made, begin, `${name} mask`);
        expect(part(made, after, `${name} mask`)).toEqual(mask);
        const [before, now] = [begin, after].map((flat) => part(made, flat, `${name} weight`));
        let moved = 0;
        mask.forEach((stays, i) => {
          if (stays === 0) expect(now![i]).toBe(before![i]);
          else if (now![i] !== before![i]) moved++;
        });
        expect(moved).toBeGreaterThan(0.9 * mask.filter((m) => m === 1).length);
      }
      expect(part(made, after, 'block.a.b bias')).not.toEqual(part(made, begin, 'block.a.b bias'));
      expect(part(made, after, 'head.w weight')).not.toEqual(part(made, begin, 'head.w weight'));
    } finally {
      await stepper.release();
    }
  });

  it('takes weights that are 0 for removed ones, and learns one tensor where layers share it', () => {
    const w = weights('w', [4, 4]);
    const model = tinyModel({
      inputs: [info('x', ['N', 4])],
      outputs: [info('y', ['N', 4])],
      nodes: [op('MatMul x w -> a', [], 'first'), op('MatMul a w -> y', [], 'second')],
      initializers: [{ ...w, rawData: w.rawData.map((byte, i) => (i < 20 ? 0 : byte)) }],
    });
    const made = sparseStudent(model, new Set(['w']), 0.5, choose);
    expect(made.parameters.map(({ name }) => name)).toEqual(['w weight', 'w mask']);
    const flat = startOf(made);
    expect([...part(made, flat, 'w mask')].slice(0, 6)).toEqual([0, 0, 0, 0, 0, 1]);
    const plan = made.of(flat);
    expect([...plan.keys()]).toEqual(['first', 'second']);
    expect(plan.get('first')).toEqual(plan.get('second'));
    expect(zeros(plan.get('first')!.codes)).toBe(8);
  });
});
