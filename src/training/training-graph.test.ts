import { describe, expect, it } from 'vitest';
import { intAttribute } from '../onnx/attributes.js';
import { makeTensor } from '../onnx/tensor.js';
import { engine, info, op, opsOf, tinyModel, weights } from '../testing/graph-writing.js';
import { layoutBlock } from '../runtime/layout-block.js';
import { tinyResNet } from '../testing/tiny-models.js';
import { openTraining, randomInput, samples } from '../testing/tiny-training.js';
import { OPTIMIZER_DEFAULTS } from './optimizers.js';
import type { StepInput } from './stepper.js';
import { classTargets } from './targets.js';

const norm = (name: string) => ['scale', 'shift', 'mean', 'var'].map((part) => `${name}.${part}`);

/** Two heads, each behind a normalization of its own. */
const twoHeads = tinyModel({
  inputs: [info('x', ['N', 3])],
  outputs: [info('other'), info('y')],
  nodes: [
    op('MatMul x stem -> s'),
    op(`BatchNormalization s ${norm('a').join(' ')} -> a`),
    op('MatMul a left -> y'),
    op(`BatchNormalization s ${norm('b').join(' ')} -> b`),
    op('MatMul b right -> other'),
  ],
  initializers: [
    ...[weights('stem', [3, 4], 1), weights('left', [4, 2], 2), weights('right', [4, 2], 3)],
    ...['a', 'b'].flatMap((name) =>
      norm(name).map((part, i) =>
        makeTensor(
          part,
          1,
          [4],
          [1, 1, 1, 1].map((v) => v + i),
        ),
      ),
    ),
  ],
});

describe('buildTrainingGraph', () => {
  it('takes the forms that are chosen for its convolutions', async () => {
    const conv = tinyModel({
      inputs: [info('x', ['N', 4, 5, 5])],
      outputs: [info('y')],
      nodes: [op('Conv x w -> a'), op('Conv a v -> y')],
      initializers: [weights('w', [4, 4, 3, 3], 1), weights('v', [4, 4, 3, 3], 2)],
    });
    const build = async (input: 'conv-transpose' | 'flipped-conv') => {
      const sizes: string[] = [];
      const { graph, stepper } = await openTraining(conv, [4, 5, 5], {
        batchSize: 2,
        layout: 'plain',
        chooseForms: (shapes) => {
          sizes.push(...shapes.map((shape) => [shape.samples, ...shape.input].join('x')));
          return Promise.resolve(() => ({ input, weight: 'taps' }));
        },
      });
      await stepper.release();
      return { sizes, transposed: opsOf(graph.update).filter((name) => name === 'ConvTranspose').length };
    };
    expect(await build('conv-transpose')).toEqual({ sizes: ['2x5x5', '2x3x3'], transposed: 1 });
    expect((await build('flipped-conv')).transposed).toBe(0);
  });

  it('adds to the loss what hints say of values inside, each by its factor', async () => {
    const inner = tinyModel({
      inputs: [info('x', ['N', 3])],
      outputs: [info('y')],
      nodes: [op('MatMul x w -> m'), op('Tanh m -> h'), op('MatMul h v -> y')],
      initializers: [weights('w', [3, 4], 1), weights('v', [4, 2], 2)],
    });
    const rate = 0.1;
    const { target: held } = randomInput([3], [4], 5, 7);
    const input = randomInput([3], [2], 5, 1);
    const stepWith = async (options: object, hints: StepInput['hints']) => {
      const { graph, stepper } = await openTraining(inner, [3], { batchSize: 5, ...options });
      const before = stepper.vectors.parameters.slice();
      const found = await stepper.step([{ ...input, ...(hints && { hints }) }], rate);
      await stepper.release();
      return { ...found, graph, move: stepper.vectors.parameters.map((v, i) => (before[i]! - v) / rate) };
    };
    const plain = await stepWith({}, undefined);
    // The value inside as the output of the loss: the same, seen alone.
    const alone = await openTraining(inner, [3], { batchSize: 5, output: 'h' });
    const before = alone.stepper.vectors.parameters.slice();
    const { loss } = await alone.stepper.step([{ feeds: input.feeds, target: held }], rate);
    await alone.stepper.release();
    const move = alone.stepper.vectors.parameters.map((v, i) => (before[i]! - v) / rate);
    const both = await stepWith({ hints: [{ value: 'h', loss: 'mse' }] }, [{ target: held, factor: 3 }]);
    expect(both.hints[0]).toBeCloseTo(loss, 5);
    expect(both.loss).toBeCloseTo(plain.loss + 3 * loss, 4);
    both.move.forEach((v, i) => {
      expect(v).toBeCloseTo(plain.move[i]! + 3 * move[i]!, 4);
    });
    const without = await stepWith({ hints: [{ value: 'h', loss: 'mse' }] }, [{ target: held, factor: 0 }]);
    expect(without.loss).toBeCloseTo(plain.loss, 6);
  });

  it('trains only what the output depends on', async () => {
    const { graph, parameters, stepper } = await openTraining(twoHeads, [3], { batchSize: 5, weightDecay: 0.1 });
    expect(graph.buffers).toEqual([
      { name: 'a.mean', size: 4 },
      { name: 'a.var', size: 4 },
    ]);
    const before = stepper.vectors.parameters.slice();
    await stepper.step([randomInput([3], [2], 5, 1)], 0.1);
    let at = 0;
    for (const { name, size } of parameters) {
      const same = before.slice(at, at + size).every((v, i) => v === stepper.vectors.parameters[at + i]);
      expect(same, name).toBe(['right', 'b.scale', 'b.shift'].includes(name));
      at += size;
    }
    await stepper.release();
  });

  it('moves running statistics, once per batch', async () => {
    const { stepper } = await openTraining(twoHeads, [3], { batchSize: 5, accumulate: 2 });
    const stem = stepper.vectors.parameters.slice(0, 12);
    let mean = [...stepper.vectors.buffers.slice(0, 4)];
    const group = [randomInput([3], [2], 5, 1), randomInput([3], [2], 5, 2)];
    for (const { feeds } of group) {
      const x = feeds.x!.data as Float32Array;
      mean = mean.map((old, c) => {
        let sum = 0;
        for (let n = 0; n < 5; n++) for (let i = 0; i < 3; i++) sum += x[n * 3 + i]! * stem[i * 4 + c]!;
        return 0.9 * old + (0.1 * sum) / 5;
      });
    }
    await stepper.step(group, 0.1);
    mean.forEach((value, c) => {
      expect(stepper.vectors.buffers[c]).toBeCloseTo(value, 5);
    });
    await stepper.release();
  });

  it('takes the same step in the blocked layout as with plain operators', async () => {
    const steps = [];
    for (const layout of ['plain', 'blocked'] as const) {
      const options = { output: 'logits', batchSize: 8, layout };
      const { graph, stepper } = await openTraining(tinyResNet(17, 16), [3, 8, 8], options);
      const ops = opsOf(graph.update);
      const inBlocks = layout === 'blocked' && (await layoutBlock(engine)) !== undefined;
      expect(ops.includes('ReorderInput')).toBe(inBlocks);
      // Between convolutions nothing is left in the plain layout: activations are part of them.
      expect(ops.includes('Relu')).toBe(!inBlocks);
      const { loss, norm } = await stepper.step([randomInput([3, 8, 8], [5], 8, 1)], 0.1);
      steps.push({ loss, norm, parameters: stepper.vectors.parameters });
      await stepper.release();
    }
    const [plain, blocked] = steps as [(typeof steps)[0], (typeof steps)[0]];
    expect(blocked.loss / plain.loss).toBeCloseTo(1, 5);
    expect(blocked.norm / plain.norm).toBeCloseTo(1, 5);
    plain.parameters.forEach((value, i) => {
      expect(blocked.parameters[i]).toBeCloseTo(value, 5);
    });
  });

  it('normalizes behind a convolution by the batch, and moves the statistics', async () => {
    const model = tinyModel({
      inputs: [info('x', ['N', 3, 4, 4])],
      outputs: [info('y', ['N', 2, 2, 2])],
      nodes: [op('Conv x w -> h'), op('BatchNormalization h scale shift mean var -> y')],
      initializers: [
        ...[weights('w', [2, 3, 3, 3], 1), makeTensor('scale', 1, [2], [1, 1]), makeTensor('shift', 1, [2], [0, 0])],
        ...[makeTensor('mean', 1, [2], [5, 5]), makeTensor('var', 1, [2], [1, 1])],
      ],
    });
    const { stepper } = await openTraining(model, [3, 4, 4], { batchSize: 3 });
    const { outputs } = await stepper.step([randomInput([3, 4, 4], [2, 2, 2], 3, 1)], 0.1);
    const y = outputs[0]!.data as Float32Array;
    expect(y.reduce((a, b) => a + b, 0)).toBeCloseTo(0, 4);
    expect(y.reduce((a, b) => a + b * b, 0) / y.length).toBeCloseTo(1, 3);
    expect(stepper.vectors.buffers.every((v, i) => Math.abs(v - (i < 2 ? 5 : 1)) > 0.1)).toBe(true);
    await stepper.release();
  });

  it('reads the loss from a value on the way to the output', async () => {
    const model = tinyModel({
      inputs: [info('x', ['N', 3])],
      outputs: [info('p', ['N', 2])],
      nodes: [op('MatMul x w -> y'), op('Softmax y -> p')],
      initializers: [weights('w', [3, 2])],
    });
    const { stepper } = await openTraining(model, [3], { batchSize: 2, loss: 'cross-entropy' });
    const target = classTargets([0, 1], 2);
    const { outputs, loss } = await stepper.step([{ feeds: { x: samples([3], 2, 1) }, target }], 0.1);
    const [a, b, c, d] = outputs[0]!.data as Float32Array as unknown as [number, number, number, number];
    expect(loss).toBeCloseTo((Math.log(1 + Math.exp(b - a)) + Math.log(1 + Math.exp(c - d))) / 2, 5);
    await stepper.release();
  });

  it('keeps frozen statistics out of the vectors', async () => {
    const { graph, stepper } = await openTraining(twoHeads, [3], { batchSize: 5, batchNorm: 'frozen' });
    expect(graph.buffers).toEqual([]);
    expect(graph.names.vectors.map(({ kind }) => kind)).toEqual(['parameters', 'state']);
    await stepper.step([randomInput([3], [2], 5, 1)], 0.1);
    await stepper.release();
  });

  it('decays matrices, not scales and shifts', async () => {
    const batch = randomInput([3], [2], 5, 1);
    const after = async (weightDecay: number) => {
      const { stepper, parameters } = await openTraining(twoHeads, [3], { batchSize: 5, weightDecay });
      const before = stepper.vectors.parameters.slice();
      await stepper.step([batch], 0.1);
      await stepper.release();
      return { before, parameters, values: stepper.vectors.parameters };
    };
    const [plain, decayed] = [await after(0), await after(0.5)];
    let at = 0;
    for (const { name, size } of plain.parameters) {
      for (let i = at; i < at + size; i++) {
        const share = ['stem', 'left'].includes(name) ? 0.1 * 0.5 * plain.before[i]! : 0;
        expect(plain.values[i]! - decayed.values[i]!).toBeCloseTo(share, 6);
      }
      at += size;
    }
  });

  it('holds standard operators only, and takes what its names say', async () => {
    const { graph, stepper } = await openTraining(twoHeads, [3], {
      ...{ batchSize: 5, accumulate: 2, optimizer: 'lamb', weightDecay: 0.1, clipNorm: 1, emaDecay: 0.9 },
    });
    const { names } = graph;
    for (const model of [graph.update, graph.gather!])
      expect(model.graph!.node.every(({ domain }) => domain === '')).toBe(true);
    const expected = [
      'x',
      names.target,
      names.accumulated!.input,
      ...names.vectors.map(({ input }) => input),
      ...names.scalars,
    ];
    expect(graph.update.graph!.input.map(({ name }) => name).sort()).toEqual(expected.sort());
    expect(opsOf(graph.gather!).length).toBeLessThan(opsOf(graph.update).length);
    await stepper.release();
  });

  it('follows the slope: the loss of a residual classifier falls by the rate times the squared norm', async () => {
    const target = classTargets([0, 3, 1, 4, 2, 2], 5, 0.1);
    const batch = { feeds: { x: samples([3, 8, 8], 6, 3) }, target };
    const { stepper } = await openTraining(tinyResNet(17, 4), [3, 8, 8], {
      batchSize: 6,
      loss: 'cross-entropy',
      output: 'logits',
    });
    const rate = 1e-3;
    const first = await stepper.step([batch], rate);
    const second = await stepper.step([batch], rate);
    expect((first.loss - second.loss) / (rate * first.norm ** 2)).toBeCloseTo(1, 1);
    await stepper.release();
  });

  it('learns a batch by heart', async () => {
    const labels = [0, 3, 1, 4, 2, 2];
    const batch = { feeds: { x: samples([3, 8, 8], 6, 3) }, target: classTargets(labels, 5) };
    const { stepper } = await openTraining(tinyResNet(13, 8), [3, 8, 8], {
      ...{ batchSize: 6, loss: 'cross-entropy', output: 'logits', optimizer: 'adamw' },
      optimizerSettings: OPTIMIZER_DEFAULTS,
    });
    let loss = Infinity;
    for (let step = 0; step < 150; step++) loss = (await stepper.step([batch], 0.01)).loss;
    expect(loss).toBeLessThan(0.02);
    await stepper.release();
  });

  it('refuses an output that is not there, and operators without a rule', async () => {
    await expect(openTraining(twoHeads, [3], { batchSize: 2, output: 'z' })).rejects.toMatchObject({
      code: 'bad-input',
      hint: 'Its outputs are other, y.',
    });
    const model = tinyModel({
      inputs: [info('x', ['N', 3, 3])],
      outputs: [info('y', ['N'])],
      nodes: [op('MatMul x w -> h'), op('Det h -> y', [], 'volume')],
      initializers: [weights('w', [3, 3])],
    });
    await expect(openTraining(model, [3, 3], { batchSize: 2 })).rejects.toMatchObject({
      code: 'unsupported',
      node: 'volume',
    });
  });

  it('takes parameters of every use: shared, transposed, with a softmax between', async () => {
    const model = tinyModel({
      inputs: [info('x', ['N', 3])],
      outputs: [info('y', ['N', 3])],
      nodes: [
        op('MatMul x w -> h'),
        op('Softmax h -> p', [intAttribute('axis', -1)]),
        op('Gemm p w -> y', [intAttribute('transB', 1)]),
      ],
      initializers: [weights('w', [3, 3])],
    });
    const batch = randomInput([3], [3], 4, 1);
    const { stepper } = await openTraining(model, [3], { batchSize: 4 });
    const first = await stepper.step([batch], 1e-3);
    const second = await stepper.step([batch], 1e-3);
    expect((first.loss - second.loss) / (1e-3 * first.norm ** 2)).toBeCloseTo(1, 1);
    await stepper.release();
  });
});
