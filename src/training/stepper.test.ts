import type { ModelProto } from 'onnx-buf';
import { describe, expect, it } from 'vitest';
import { BLOCKED_DOMAIN } from '../onnx/blocked.js';
import { Graph, type Node } from '../onnx/graph.js';
import { layoutBlock } from '../runtime/layout-block.js';
import { tinyResNet } from '../testing/tiny-models.js';
import type { TrainingGraphOptions } from './training-graph.js';
import { intAttribute } from '../onnx/attributes.js';
import { makeTensor } from '../onnx/tensor.js';
import { engine, info, op, tinyModel, weights } from '../testing/graph-writing.js';
import { copyVectors, openTraining, randomInput, rowsOf, samples } from '../testing/tiny-training.js';
import { drawMask } from './dropout.js';
import { OPTIMIZER_DEFAULTS } from './optimizers.js';
import { openStepper, type StepInput } from './stepper.js';

/** y = x w + b, from 3 numbers to 2. */
const linear = tinyModel({
  inputs: [info('x', ['N', 3])],
  outputs: [info('y', ['N', 2])],
  nodes: [op('Gemm x w b -> y')],
  initializers: [weights('w', [3, 2], 1), weights('b', [2], 2)],
});

/** Two layers with normalization and dropout between them. */
const deep = tinyModel({
  inputs: [info('x', ['N', 3])],
  outputs: [info('y', ['N', 2])],
  nodes: [
    op('Gemm x v c -> h', [intAttribute('transB', 1)]),
    op('BatchNormalization h scale shift mean var -> n'),
    op('Relu n -> r'),
    op('Dropout r ratio -> d'),
    op('Gemm d w b -> y'),
  ],
  initializers: [
    ...[weights('v', [4, 3], 3), weights('c', [4], 4), weights('w', [4, 2], 5), weights('b', [2], 6)],
    ...[weights('scale', [4], 7), weights('shift', [4], 8), makeTensor('mean', 1, [4], [0, 0, 0, 0])],
    ...[makeTensor('var', 1, [4], [1, 1, 1, 1]), makeTensor('ratio', 1, [], [0.3])],
  ],
});

const adamw = { optimizer: 'adamw', optimizerSettings: OPTIMIZER_DEFAULTS } as const;
const input = (rows: number, seed: number): StepInput => randomInput([3], [2], rows, seed);

function expectClose(actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance = 1e-6): void {
  expect(actual.length).toBe(expected.length);
  Array.from(expected).forEach((value, i) => {
    expect(Math.abs(actual[i]! - value), `element ${String(i)}`).toBeLessThan(tolerance);
  });
}

/** Mean squared error of the linear model and its gradient in w (3 by 2) and b. */
function linearGradient(flat: ArrayLike<number>, { feeds, target }: StepInput): { loss: number; gradient: number[] } {
  const [x, t] = [feeds.x!.data as Float32Array, target.data as Float32Array];
  const rows = t.length / 2;
  const gradient = new Array<number>(8).fill(0);
  let loss = 0;
  for (let n = 0; n < rows; n++)
    for (let k = 0; k < 2; k++) {
      let y = flat[6 + k]!;
      for (let i = 0; i < 3; i++) y += x[n * 3 + i]! * flat[i * 2 + k]!;
      const error = y - t[n * 2 + k]!;
      loss += error ** 2 / (2 * rows);
      const slope = error / rows;
      for (let i = 0; i < 3; i++) gradient[i * 2 + k]! += slope * x[n * 3 + i]!;
      gradient[6 + k]! += slope;
    }
  return { loss, gradient };
}

describe('a step', () => {
  it('of a linear model is the one computed by hand', async () => {
    const { stepper } = await openTraining(linear, [3], { batchSize: 4 });
    for (const seed of [1, 2, 3]) {
      const before = stepper.vectors.parameters.slice();
      const batch = input(4, seed);
      const { loss, gradient } = linearGradient(before, batch);
      const result = await stepper.step([batch], 0.1);
      expect(result.loss).toBeCloseTo(loss, 5);
      expect(result.norm).toBeCloseTo(Math.hypot(...gradient), 5);
      expect(result.outputs.map(({ dims }) => dims)).toEqual([[4, 2]]);
      expectClose(
        stepper.vectors.parameters,
        gradient.map((g, i) => before[i]! - 0.1 * g),
      );
    }
    expect(stepper.steps).toBe(3);
    await stepper.release();
  });

  it.each(['sgd', 'adamw'] as const)('of two half batches equals one of the whole: %s', async (optimizer) => {
    const options = { ...adamw, optimizer, weightDecay: 0.1, clipNorm: 0.5, emaDecay: 0.9 };
    const whole = await openTraining(linear, [3], { ...options, batchSize: 4 });
    const halves = await openTraining(linear, [3], { ...options, batchSize: 2, accumulate: 2 });
    for (const seed of [1, 2, 3]) {
      const batch = input(4, seed);
      const one = await whole.stepper.step([batch], 0.1);
      const two = await halves.stepper.step([rowsOf(batch, 0, 2), rowsOf(batch, 2, 4)], 0.1);
      expect(two.loss).toBeCloseTo(one.loss, 5);
      expect(two.norm).toBeCloseTo(one.norm, 5);
      expect(two.outputs.length).toBe(2);
    }
    expectClose(halves.stepper.vectors.parameters, whole.stepper.vectors.parameters);
    expectClose(halves.stepper.vectors.average!, whole.stepper.vectors.average!);
    await whole.stepper.release();
    await halves.stepper.release();
  });

  it('is as long as the limit when the gradient is longer', async () => {
    const batch = input(4, 1);
    const free = await openTraining(linear, [3], { batchSize: 4 });
    const { norm } = await free.stepper.step([batch], 0.1);
    for (const limit of [norm / 10, norm * 2]) {
      const { stepper } = await openTraining(linear, [3], { batchSize: 4, clipNorm: limit });
      const before = stepper.vectors.parameters.slice();
      const result = await stepper.step([batch], 0.1);
      expect(result.norm).toBeCloseTo(norm, 6);
      const moved = Math.hypot(...stepper.vectors.parameters.map((p, i) => p - before[i]!));
      expect(moved).toBeCloseTo(0.1 * Math.min(limit, norm), 6);
      if (limit > norm) expect(stepper.vectors.parameters).toEqual(free.stepper.vectors.parameters);
      await stepper.release();
    }
    await free.stepper.release();
  });

  it('of adamw begins with the length of the rate in every parameter, whatever the gradient', async () => {
    const { stepper } = await openTraining(linear, [3], { ...adamw, batchSize: 4 });
    const before = stepper.vectors.parameters.slice();
    await stepper.step([input(4, 1)], 0.1);
    stepper.vectors.parameters.forEach((p, i) => {
      expect(Math.abs(p - before[i]!)).toBeCloseTo(0.1, 5);
    });
    await stepper.release();
  });

  it('moves the average a little towards the parameters', async () => {
    const { stepper } = await openTraining(linear, [3], { batchSize: 4, emaDecay: 0.8 });
    let average = [...stepper.vectors.parameters];
    for (const seed of [1, 2, 3]) {
      await stepper.step([input(4, seed)], 0.1);
      average = average.map((a, i) => 0.8 * a + 0.2 * stepper.vectors.parameters[i]!);
      expectClose(stepper.vectors.average!, average);
    }
    await stepper.release();
  });

  it('drops what the masks say, in every batch anew', async () => {
    const model = tinyModel({
      inputs: [info('x', ['N', 3])],
      outputs: [info('y', ['N', 3])],
      nodes: [op('Add x b -> h'), op('Dropout h -> y')],
      initializers: [weights('b', [3])],
    });
    const { stepper, graph } = await openTraining(model, [3], { batchSize: 4, accumulate: 2 });
    const b = stepper.vectors.parameters.slice();
    const batch: StepInput = { feeds: { x: samples([3], 4, 1) }, target: samples([3], 4, 2) };
    const { outputs } = await stepper.step([batch, batch], 0);
    const x = batch.feeds.x!.data as Float32Array;
    outputs.forEach(({ data }, k) => {
      const mask = drawMask(graph.names.masks[0]!, k, new Float32Array(12)).data as Float32Array;
      expectClose(
        data as Float32Array,
        x.map((v, i) => (v + b[i % 3]!) * mask[i]!),
      );
    });
    expect(outputs[0]!.data).not.toEqual(outputs[1]!.data);
    const { outputs: later } = await stepper.step([batch, batch], 0);
    for (const { data } of later) for (const earlier of outputs) expect(data).not.toEqual(earlier.data);
    await stepper.release();
  });
});

describe('a step that fails', () => {
  const options = { ...adamw, batchSize: 4, accumulate: 2, emaDecay: 0.9 };
  const broken = (batch: StepInput): StepInput => {
    const x = batch.feeds.x!;
    return { ...batch, feeds: { x: { ...x, data: (x.data as Float32Array).with(4, NaN) } } };
  };

  it.each([0, 1])('names itself and changes nothing when batch %s of its group holds NaN', async (at) => {
    const { stepper } = await openTraining(deep, [3], options);
    await stepper.step([input(4, 1), input(4, 2)], 0.01);
    const before = copyVectors(stepper.vectors);
    const group = [input(4, 3), input(4, 4)].map((batch, i) => (i === at ? broken(batch) : batch));
    await expect(stepper.step(group, 0.01)).rejects.toMatchObject({
      code: 'bad-input',
      message: expect.stringMatching(/step 2.*outputs/) as string,
    });
    expect(stepper.vectors).toEqual(before);
    expect(stepper.steps).toBe(1);
    // It goes on as if nothing had been.
    await stepper.step([input(4, 3), input(4, 4)], 0.01);
    expect(stepper.steps).toBe(2);
    await stepper.release();
  });

  it('tells a loss that overflows from outputs that do', async () => {
    const { stepper } = await openTraining(linear, [3], { batchSize: 4 });
    const batch = input(4, 1);
    const target = { ...batch.target, data: (batch.target.data as Float32Array).with(0, 1e30) };
    await expect(stepper.step([{ ...batch, target }], 0.1)).rejects.toMatchObject({
      code: 'bad-input',
      message: expect.stringContaining('the loss became') as string,
    });
    await stepper.release();
  });

  it('changes nothing when the engine refuses a batch', async () => {
    const { stepper } = await openTraining(deep, [3], options);
    const before = copyVectors(stepper.vectors);
    await expect(stepper.step([input(4, 1), input(3, 2)], 0.01)).rejects.toThrow();
    expect(stepper.vectors).toEqual(before);
    await stepper.release();
  });
});

describe('a stepper', () => {
  it('says what a step would say without taking it', async () => {
    const options = { ...adamw, batchSize: 4, accumulate: 2, emaDecay: 0.9 };
    const { stepper } = await openTraining(deep, [3], options);
    const group = [input(4, 1), input(4, 2)];
    await stepper.step([input(4, 3), input(4, 4)], 0.02);
    const before = copyVectors(stepper.vectors);
    const { loss, norm } = await stepper.measure(group);
    expect(stepper.vectors).toEqual(before);
    expect(stepper.steps).toBe(1);
    expect(await stepper.step(group, 0.02)).toMatchObject({ loss, norm });
    expect(stepper.vectors).not.toEqual(before);
    await stepper.release();
  });

  it('that goes on from vectors and a number of steps is the one that was never closed, bit for bit', async () => {
    const options = { ...adamw, batchSize: 4, accumulate: 2, emaDecay: 0.9, weightDecay: 0.01, clipNorm: 1 };
    const group = (step: number): StepInput[] => [input(4, 10 * step), input(4, 10 * step + 1)];
    const first = await openTraining(deep, [3], options);
    for (let step = 1; step <= 2; step++) await first.stepper.step(group(step), 0.02);
    const kept = copyVectors(first.stepper.vectors);
    for (let step = 3; step <= 4; step++) await first.stepper.step(group(step), 0.02);
    // Built anew, as another process would.
    const second = await (await openTraining(deep, [3], options)).reopen(kept, 2);
    for (let step = 3; step <= 4; step++) await second.step(group(step), 0.02);
    expect(second.vectors).toEqual(first.stepper.vectors);
    expect(second.steps).toBe(4);
    await first.stepper.release();
    await second.release();
  });
});

describe('openStepper', () => {
  it('lets values live no longer than they are needed: without a block laid out for a whole run', async () => {
    const { graph, stepper } = await openTraining(linear, [3], { batchSize: 2, accumulate: 2 });
    const given: unknown[] = [];
    const watched: typeof engine = {
      ...engine,
      createSession: (model, options) => {
        given.push(options);
        return engine.createSession(model, options);
      },
    };
    const optimizer = { name: 'sgd', settings: OPTIMIZER_DEFAULTS } as const;
    await (await openStepper(watched, graph, optimizer, stepper.vectors)).release();
    expect(given).toEqual([{ memoryPattern: false }, { memoryPattern: false }]);
    await stepper.release();
  });
});

describe('checkpointed activations', () => {
  const across = async (model: ModelProto, dims: number[], out: number[], more: Partial<TrainingGraphOptions>) => {
    const options = { batchSize: 4, ...adamw, ...more };
    const plain = await openTraining(model, dims, options);
    const again = await openTraining(model, dims, { ...options, checkpointActivations: true });
    for (let step = 0; step < 3; step++) {
      const group = Array.from({ length: more.accumulate ?? 1 }, (_, i) => randomInput(dims, out, 4, 10 * step + i));
      const [a, b] = [await plain.stepper.step(group, 0.01), await again.stepper.step(group, 0.01)];
      expect(Math.abs(a.loss - b.loss)).toBeLessThan(1e-6 * a.loss);
    }
    expectClose(again.stepper.vectors.parameters, plain.stepper.vectors.parameters, 2e-6);
    expectClose(again.stepper.vectors.buffers, plain.stepper.vectors.buffers);
    await Promise.all([plain.stepper.release(), again.stepper.release()]);
    return again.graph;
  };

  it('train as kept ones do: convolutions, normalizations and dropout, each applied once', async () => {
    await across(deep, [3], [2], {});
    await across(deep, [3], [2], { accumulate: 2, clipNorm: 0.5 });
    await across(tinyResNet(17, 8), [3, 8, 8], [5], { output: 'logits' });
  });

  it('are computed when the backward pass has come to them', async () => {
    const { update, gather } = await across(chain(12), [3], [3], { accumulate: 2 });
    for (const model of [update, gather!]) {
      const graph = new Graph(model);
      const copies = graph.nodes.filter((node) => node.is('Tanh') && node.outputs[0]!.name.includes(' again'));
      expect(copies.length).toBeGreaterThan(4);
      const target = (node: Node): boolean => node.inputs.some((value) => value?.name === 'target');
      for (const copy of copies) expect(ancestors(copy).some(target)).toBe(true);
      // The first segment too, although what it reads is fed.
      const first = graph.nodes.find((node) => node.is('Tanh'))!.outputs[0]!.name;
      expect(copies.map(({ outputs }) => outputs[0]!.name)).toContain(`${first} again`);
    }
  });

  it('are computed in the blocked layout, as those that are kept', async () => {
    const { update } = await across(tinyResNet(17, 16), [3, 8, 8], [5], { output: 'logits' });
    const convolutions = new Graph(update).nodes.filter(({ opType }) => opType === 'Conv');
    const blocked = (await layoutBlock(engine)) !== undefined;
    expect(convolutions.length).toBeGreaterThan(3);
    for (const node of convolutions) expect(node.is('Conv', BLOCKED_DOMAIN)).toBe(blocked);
  });
});

/** That many layers of tanh(x w). */
function chain(depth: number): ModelProto {
  const layers = Array.from({ length: depth }, (_, i) => i);
  return tinyModel({
    inputs: [info('x', ['N', 3])],
    outputs: [info('y', ['N', 3])],
    nodes: layers.flatMap((i) => [
      op(`MatMul ${i === 0 ? 'x' : `t${String(i)}`} w${String(i)} -> h${String(i)}`),
      op(`Tanh h${String(i)} -> ${i === depth - 1 ? 'y' : `t${String(i + 1)}`}`),
    ]),
    initializers: layers.map((i) => weights(`w${String(i)}`, [3, 3], i + 1)),
  });
}

function ancestors(node: Node): Node[] {
  const found = new Set<Node>();
  const open = [node];
  for (let next; (next = open.pop());)
    for (const value of next.inputs)
      if (value?.producer && !found.has(value.producer)) {
        found.add(value.producer);
        open.push(value.producer);
      }
  return [...found];
}
