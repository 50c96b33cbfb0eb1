import { describe, expect, it } from 'vitest';
import { intAttribute, tensorAttribute } from '../onnx/attributes.js';
import { Graph } from '../onnx/graph.js';
import { makeTensor } from '../onnx/tensor.js';
import { distance, info, op, opsOf, run, tensorFeed, tinyModel, weights } from '../testing/graph-writing.js';
import { tinyResNet } from '../testing/tiny-models.js';
import { feedDropoutMasks } from './dropout.js';
import { readParameters, trainableParameters } from './parameters.js';
import { trainedModel } from './trained-model.js';
import { enterTrainingMode } from './training-mode.js';

const zeros = makeTensor('zeros', 1, [3], [0, 0, 0]);
const ones = makeTensor('ones', 1, [3], [1, 1, 1]);
/** Two fresh normalizations whose equal tensors an exporter has merged, and a softmax. */
const merged = tinyModel({
  opset: 12,
  inputs: [info('x', ['N', 3])],
  outputs: [info('p', ['N', 3])],
  nodes: [
    op('BatchNormalization x a zeros zeros ones -> h'),
    op('BatchNormalization h b zeros zeros ones -> z'),
    op('Softmax z -> p', [intAttribute('axis', 1)]),
  ],
  initializers: [weights('a', [3], 1), weights('b', [3], 2), zeros, ones],
});

describe('trainedModel', () => {
  it('reads the logits behind a softmax, or the scores themselves', () => {
    expect(trainedModel(merged, 'p', 'cross-entropy').output).toBe('z');
    expect(trainedModel(tinyResNet(), 'logits', 'cross-entropy').output).toBe('logits');
  });

  it('refuses a softmax over another axis than that of the classes', () => {
    const tokens = tinyModel({
      inputs: [info('x', ['N', 5, 3])],
      outputs: [info('p', ['N', 5, 3])],
      nodes: [op('MatMul x w -> z'), op('Softmax z -> p', [intAttribute('axis', -1)], 'end')],
      initializers: [weights('w', [3, 3])],
    });
    expect(() => trainedModel(tokens, 'p', 'kl', 3)).toThrow(
      expect.objectContaining({ code: 'unsupported', node: 'end' }),
    );
    expect(trainedModel(tokens, 'p', 'bce', 3).output).toBe('z');
    expect(trainedModel(tokens, 'p', 'mse', 3).output).toBe('p');
  });

  it('is the model itself until something is trained, in opset 13 or newer', async () => {
    const { model, finish } = trainedModel(merged, 'p', 'cross-entropy');
    expect(new Graph(model).opset()).toBeGreaterThanOrEqual(13);
    const x = tensorFeed([4, 3]);
    const expected = await run(merged, { x });
    expect(distance(await run(model, { x }), expected)).toBeLessThan(1e-6);
    const parameters = trainableParameters(new Graph(model));
    const vectors = { parameters: readParameters(model, parameters), buffers: new Float32Array(), states: [] };
    expect(distance(await run(finish(parameters, [], vectors), { x }), expected)).toBeLessThan(1e-6);
  });

  it('gives every normalization statistics of its own', () => {
    const { model, finish } = trainedModel(merged, 'p', 'cross-entropy');
    const buffers = enterTrainingMode(new Graph(model));
    expect(new Set(buffers.map(({ name }) => name)).size).toBe(4);
    const trained = finish([], buffers, {
      parameters: new Float32Array(),
      buffers: Float32Array.from({ length: 12 }, (_, i) => i),
      states: [],
    });
    expect([...readParameters(trained, buffers)]).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
  });

  it('keeps Dropout for the training, not for what is written', () => {
    const original = tinyModel({
      inputs: [info('x', ['N', 3])],
      outputs: [info('y', ['N', 3])],
      nodes: [
        op('Constant -> ratio', [tensorAttribute('value', makeTensor('', 1, [], [0.2]))]),
        op('MatMul x w -> h'),
        op('Dropout h ratio -> d'),
        op('Relu d -> y'),
      ],
      initializers: [weights('w', [3, 3])],
    });
    const { model, finish } = trainedModel(original, 'y', 'mse');
    expect(opsOf(model)).toEqual(['MatMul', 'Dropout', 'Relu']);
    const shapes = new Map(['d', 'h'].map((name) => [name, [2, 3]]));
    expect(feedDropoutMasks(new Graph(model), shapes, 1)).toMatchObject([{ dims: [2, 3], ratio: Math.fround(0.2) }]);
    const vectors = { parameters: new Float32Array(), buffers: new Float32Array(), states: [] };
    expect(opsOf(finish([], [], vectors))).toEqual(['MatMul', 'Relu']);
  });

  it('takes the moving average of the parameters where there is one', () => {
    const { model, finish } = trainedModel(tinyResNet(), 'logits', 'cross-entropy');
    const parameters = trainableParameters(new Graph(model));
    const flat = readParameters(model, parameters);
    const average = flat.map((v) => v / 2);
    const trained = finish(parameters, [], { parameters: flat, buffers: new Float32Array(), states: [], average });
    expect(readParameters(trained, parameters)).toEqual(average);
  });
});
