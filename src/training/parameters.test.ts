import { describe, expect, it } from 'vitest';
import { intAttribute } from '../onnx/attributes.js';
import { DataType } from '../onnx/dtypes.js';
import { Graph } from '../onnx/graph.js';
import { makeTensor, readFloats } from '../onnx/tensor.js';
import { info, op, tinyModel, weights } from '../testing/graph-writing.js';
import { tinyResNet } from '../testing/tiny-models.js';
import { readParameters, trainableParameters, withParameters } from './parameters.js';

describe('trainableParameters', () => {
  it('are the kernels and biases of a residual classifier', () => {
    const found = trainableParameters(new Graph(tinyResNet(17, 4)));
    expect(found).toEqual([
      { name: 'stem.w', dims: [4, 3, 3, 3], size: 108, decays: true },
      { name: 'stem.b', dims: [4], size: 4, decays: false },
      { name: 'block.a.w', dims: [4, 4, 3, 3], size: 144, decays: true },
      { name: 'block.a.b', dims: [4], size: 4, decays: false },
      { name: 'block.b.w', dims: [4, 4, 3, 3], size: 144, decays: true },
      { name: 'block.b.b', dims: [4], size: 4, decays: false },
      { name: 'head.w', dims: [5, 4], size: 20, decays: true },
      { name: 'head.b', dims: [5], size: 5, decays: false },
    ]);
  });

  it('leave out statistics, bounds, integers, masks and scalars of formulas', () => {
    const model = tinyModel({
      inputs: [info('x', ['N', 2, 3]), info('i', [2], DataType.INT64)],
      outputs: [info('y'), info('z'), info('e')],
      nodes: [
        op('BatchNormalization x scale shift mean var -> n'),
        op('Clip n low high -> c'),
        op('Mul c two -> m'),
        op('Less m bounds -> l'),
        op('Where l m fill -> w'),
        op('Add w position -> y'),
        op('Add i shifts -> z'),
        op('Gather table i -> e', [intAttribute('axis', 0)]),
      ],
      initializers: [
        ...['scale', 'shift', 'mean', 'var'].map((name) => weights(name, [2])),
        ...['low', 'high', 'two'].map((name) => weights(name, [])),
        ...['bounds', 'fill'].map((name) => weights(name, [3])),
        weights('position', [1, 2, 3]),
        makeTensor('shifts', DataType.INT64, [2], [1n, 2n]),
        weights('table', [5, 4]),
      ],
    });
    const found = trainableParameters(new Graph(model));
    expect(found.map(({ name, decays }) => [name, decays])).toEqual([
      ['scale', false],
      ['shift', false],
      ['position', true],
      ['table', true],
    ]);
  });

  it('count a tensor that is read twice once', () => {
    const model = tinyModel({
      inputs: [info('x', ['N', 2])],
      outputs: [info('y')],
      nodes: [op('MatMul x w -> h'), op('MatMul h w -> y')],
      initializers: [weights('w', [2, 2])],
    });
    expect(trainableParameters(new Graph(model)).map(({ name }) => name)).toEqual(['w']);
  });

  it('refuse a model in which nothing learns', () => {
    const model = tinyModel({ inputs: [info('x', ['N', 2])], outputs: [info('y')], nodes: [op('Relu x -> y')] });
    expect(() => trainableParameters(new Graph(model))).toThrow(expect.objectContaining({ code: 'unsupported' }));
  });
});

describe('readParameters and withParameters', () => {
  it('go there and back, end to end in order', () => {
    const model = tinyResNet(17, 4);
    const layout = trainableParameters(new Graph(model));
    const flat = readParameters(model, layout);
    expect(flat.length).toBe(433);
    expect([...flat.subarray(108, 112)]).toEqual([...readFloats(new Graph(model).mustGet('stem.b').initializer!)]);
    const changed = flat.map((v, i) => v + i);
    const other = withParameters(model, layout, changed);
    expect(readParameters(other, layout)).toEqual(changed);
    // The first model is as it was, and the second one has nothing else that is new.
    expect(readParameters(model, layout)).toEqual(flat);
    expect(readParameters(withParameters(other, layout, flat), layout)).toEqual(flat);
    expect(other.graph!.initializer.map(({ name, dims }) => [name, dims])).toEqual(
      model.graph!.initializer.map(({ name, dims }) => [name, dims]),
    );
  });

  it('holds no reference to the vector', () => {
    const model = tinyResNet(17, 4);
    const layout = trainableParameters(new Graph(model));
    const flat = readParameters(model, layout);
    const other = withParameters(model, layout, flat);
    const first = flat[0]!;
    flat.fill(7);
    expect(readParameters(other, layout)[0]).toBe(first);
  });
});
