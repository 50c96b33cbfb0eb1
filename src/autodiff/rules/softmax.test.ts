import { describe, expect, it } from 'vitest';
import type { AttributeProto } from 'onnx-buf';
import { intAttribute, stringAttribute } from '../../onnx/attributes.js';
import { DataType } from '../../onnx/dtypes.js';
import { checkGradients, randomArray } from '../../testing/check-gradients.js';
import { checkRule } from '../../testing/check-in-engine.js';
import { info, op, tinyModel } from '../../testing/graph-writing.js';
import { array } from '../../testing/reference/array.js';

describe('softmax', () => {
  it.each(['Softmax', 'LogSoftmax'])('%s along any axis', async (name) => {
    for (const axis of [undefined, -1, 0, 1, 2, -2]) {
      const model = tinyModel({
        opset: 13,
        inputs: [info('x', ['N', 3, 4])],
        outputs: [info('y')],
        nodes: [op(`${name} x -> y`, axis === undefined ? [] : [intAttribute('axis', axis)])],
      });
      const given = { x: randomArray([2, 3, 4], 1) };
      await checkRule(model, given, { others: [{ x: randomArray([3, 3, 4], 2) }] });
    }
  });
});

describe.each(['SoftmaxCrossEntropyLoss', 'NegativeLogLikelihoodLoss'])('%s', (name) => {
  const reductions = ['mean', 'sum', 'none'];
  const cases = reductions.flatMap((reduction) =>
    [undefined, 1, -1, -100].flatMap((ignored) =>
      [false, true].flatMap((weighted) => [[], [2]].map((spatial) => ({ reduction, ignored, weighted, spatial }))),
    ),
  );

  const modelOf = ({ reduction, ignored, weighted, spatial }: (typeof cases)[number], outputs = 'y') => {
    const attributes: AttributeProto[] = [stringAttribute('reduction', reduction)];
    if (ignored !== undefined) attributes.push(intAttribute('ignore_index', ignored));
    return tinyModel({
      opset: 13,
      inputs: [
        info('x', ['N', 4, ...spatial]),
        info('labels', ['N', ...spatial], DataType.INT64),
        ...(weighted ? [info('w', [4])] : []),
      ],
      outputs: outputs.split(' ').map((output) => info(output)),
      nodes: [op(`${name} x labels ${weighted ? 'w ' : ''}-> ${outputs}`, attributes)],
    });
  };
  const givenOf = (batch: number, { ignored, weighted, spatial }: (typeof cases)[number]) => {
    const count = batch * (spatial[0] ?? 1);
    const labels = Array.from({ length: count }, (_, i) =>
      i % 3 === 1 && ignored !== undefined ? ignored : (i * 3) % 4,
    );
    return {
      x: randomArray([batch, 4, ...spatial], batch),
      labels: array([batch, ...spatial], labels),
      ...(weighted ? { w: array([4], [0.5, 2, 1, 0.25]) } : {}),
    };
  };

  it.each(cases)('reduction $reduction, ignoring $ignored, weights $weighted, spatial $spatial', async (spec) => {
    const others = [givenOf(2, spec)];
    await checkRule(modelOf(spec), givenOf(3, spec), { wanted: ['x'], others });
  });

  it('labels of 32 bits', async () => {
    const spec = cases[0]!;
    const model = modelOf(spec);
    model.graph!.input[1] = info('labels', ['N'], DataType.INT32);
    await checkRule(model, givenOf(3, spec), { wanted: ['x'] });
  });

  it('refuses to train the class weights', () => {
    const spec = { reduction: 'mean', ignored: undefined, weighted: true, spatial: [] };
    expect(() => checkGradients(modelOf(spec), givenOf(3, spec), { wanted: ['w'] })).toThrow(/weights/);
  });
});

describe('SoftmaxCrossEntropyLoss', () => {
  it('goes back from its log-probabilities too, alone or with the loss', async () => {
    const model = tinyModel({
      inputs: [info('x', ['N', 4]), info('labels', ['N'], DataType.INT64)],
      outputs: [info('y'), info('p')],
      nodes: [op('SoftmaxCrossEntropyLoss x labels -> y p')],
    });
    const given = { x: randomArray([3, 4], 1), labels: array([3], [0, 3, 1]) };
    for (const outputs of [['y', 'p'], ['p'], ['y']]) await checkRule(model, given, { wanted: ['x'], outputs });
  });
});
