import type { NodeProto, TensorProto } from 'onnx-buf';
import { describe, expect, it } from 'vitest';
import {
  distance,
  engine,
  info,
  ints,
  op,
  opsOf,
  run,
  tensorFeed,
  tinyModel,
  weights,
} from '../../testing/graph-writing.js';
import { intAttribute, intsAttribute, stringAttribute } from '../attributes.js';
import { DataType } from '../dtypes.js';
import { readInts, makeTensor } from '../tensor.js';
import { validateModel } from '../validate.js';
import type { Feeds } from '../../runtime/engine.js';
import { collapseShapes } from './collapse-shapes.js';

const zero = ints('zero', [0]);
const scalar = (name: string, value: number): TensorProto => ints(name, [value], []);

/** The way tracers write x.view(x.size(0), heads, -1): the batch size, as a vector of one. */
function batchOf(value: string, to: string): NodeProto[] {
  return [
    op(`Shape ${value} -> ${to}_shape`),
    op(`Gather ${to}_shape first -> ${to}_scalar`, [intAttribute('axis', 0)]),
    op(`Unsqueeze ${to}_scalar zero -> ${to}`),
  ];
}

async function collapse(model: ReturnType<typeof tinyModel>, feeds: (n: number) => Feeds, sizes = [1, 2, 4, 7]) {
  const collapsed = await collapseShapes(engine, model, feeds);
  validateModel(collapsed);
  for (const n of sizes) expect(distance(await run(model, feeds(n)), await run(collapsed, feeds(n)))).toBe(0);
  return collapsed;
}

const shapeOf = (model: ReturnType<typeof tinyModel>, node: number): number[] => {
  const name = model.graph!.node[node]!.input[1]!;
  return readInts(model.graph!.initializer.find((tensor) => tensor.name === name)!);
};

describe('collapseShapes', () => {
  const feeds = (n: number): Feeds => ({ x: tensorFeed([n, 4, 6], n) });
  const base = { inputs: [info('x', ['N', 4, 6])], outputs: [info('y')] };

  it('gives a Reshape by the batch size a constant shape', async () => {
    const nodes = [
      ...batchOf('x', 'b'),
      op('Concat b rest -> target', [intAttribute('axis', 0)]),
      op('Reshape x target -> y'),
    ];
    const initializers = [zero, scalar('first', 0), ints('rest', [2, 2, 6])];
    const model = await collapse(tinyModel({ ...base, nodes, initializers }), feeds);
    expect(opsOf(model)).toEqual(['Reshape']);
    expect(shapeOf(model, 0)).toEqual([-1, 2, 2, 6]);
    expect(model.graph!.initializer).toHaveLength(1);
  });

  it('infers the one size that varies when the exporter left another one open', async () => {
    const nodes = [
      ...batchOf('x', 'b'),
      op('Mul b two -> b2'),
      op('Concat b2 open -> target', [intAttribute('axis', 0)]),
      op('Reshape x target -> y'),
    ];
    const initializers = [zero, scalar('first', 0), ints('two', [2]), ints('open', [-1])];
    const model = await collapse(tinyModel({ ...base, nodes, initializers }), feeds);
    expect(opsOf(model)).toEqual(['Reshape']);
    expect(shapeOf(model, 0)).toEqual([-1, 12]);
  });

  it('copies sizes that vary in place when more than one does', async () => {
    // The products of all samples with each other, [N, N], viewed as [N, 1, N].
    const nodes = [
      ...batchOf('x', 'b'),
      op('Flatten x -> f'),
      op('Transpose f -> ft'),
      op('MatMul f ft -> products'),
      op('Concat b one b -> target', [intAttribute('axis', 0)]),
      op('Reshape products target -> y'),
    ];
    const initializers = [zero, scalar('first', 0), ints('one', [1])];
    const model = await collapse(tinyModel({ ...base, nodes, initializers }), feeds);
    expect(opsOf(model)).toEqual(['Flatten', 'Transpose', 'MatMul', 'Reshape']);
    expect(shapeOf(model, 3)).toEqual([0, 1, -1]);
  });

  it('folds sizes that never vary, and drops a Reshape and an Expand that change nothing', async () => {
    const nodes = [
      op('Shape x -> s'),
      op('Gather s last -> size'),
      op('Cast size -> f', [intAttribute('to', DataType.FLOAT)]),
      op('Sqrt f -> root'),
      op('Div x root -> d'),
      op('Reshape d s -> e'),
      op('Expand e s -> g'),
      op('Relu g -> y'),
    ];
    const model = await collapse(tinyModel({ ...base, nodes, initializers: [scalar('last', 2)] }), feeds);
    expect(opsOf(model)).toEqual(['Div', 'Relu']);
  });

  it('keeps what depends on the batch: a comparison that changes, a Range, an Expand over the batch', async () => {
    const nodes = [
      ...batchOf('x', 'b'),
      op('Greater b one -> many'),
      op('Where many two five -> factor'),
      op('Cast factor -> k', [intAttribute('to', DataType.FLOAT)]),
      op('Concat b tail -> target', [intAttribute('axis', 0)]),
      op('Expand w target -> e'),
      op('Mul e k -> m'),
      op('Sum m x -> y'),
    ];
    const initializers = [
      zero,
      scalar('first', 0),
      ints('one', [1]),
      ints('two', [2]),
      ints('five', [5]),
      ints('tail', [4, 6]),
      weights('w', [1, 4, 6]),
    ];
    const model = await collapse(tinyModel({ ...base, nodes, initializers }), feeds);
    expect(opsOf(model)).toEqual(expect.arrayContaining(['Shape', 'Greater', 'Where', 'Expand']));
  });

  it.each([
    ['before', 'first'],
    ['before', 'last'],
    ['after', 'first'],
    ['after', 'last'],
  ])('stores a class token with the embedding added %s it, the token %s', async (when, end) => {
    const pair = end === 'first' ? 'e p' : 'p e';
    const nodes = [
      ...(when === 'before' ? [op('Add x pos -> p')] : [op('Relu x -> p')]),
      ...batchOf('p', 'b'),
      op('Concat b tail -> target', [intAttribute('axis', 0)]),
      op('Expand cls target -> e'),
      op(`Concat ${pair} -> c`, [intAttribute('axis', -2)]),
      when === 'before' ? op('Neg c -> y') : op('Add pos c -> y'),
    ];
    const initializers = [
      zero,
      scalar('first', 0),
      ints('tail', [1, 6]),
      weights('cls', [1, 1, 6]),
      weights('pos', [1, when === 'before' ? 4 : 5, 6], 4),
    ];
    const model = await collapse(tinyModel({ ...base, nodes, initializers }), feeds);
    expect(opsOf(model)).toEqual(when === 'before' ? ['Pad', 'Add', 'Neg'] : ['Relu', 'Pad', 'Add']);
  });

  it('only folds constants where another axis is dynamic', async () => {
    const nodes = [
      ...batchOf('x', 'b'),
      op('Concat b rest -> target', [intAttribute('axis', 0)]),
      op('Reshape x target -> r'),
      op('Transpose w -> wt', [intsAttribute('perm', [1, 0])]),
      op('MatMul r wt -> y'),
    ];
    const initializers = [zero, scalar('first', 0), ints('rest', [-1, 6]), weights('w', [5, 6])];
    const open = { ...base, inputs: [info('x', ['N', 'T', 6])] };
    const model = await collapse(tinyModel({ ...open, nodes, initializers }), (n) => ({ x: tensorFeed([n, 3, 6]) }));
    expect(opsOf(model)).toEqual(['Shape', 'Gather', 'Unsqueeze', 'Concat', 'Reshape', 'MatMul']);
  });

  it('folds every shape of a model of fixed size', async () => {
    const nodes = [
      ...batchOf('x', 'b'),
      op('Concat b rest -> target', [intAttribute('axis', 0)]),
      op('Reshape x target -> y'),
    ];
    const initializers = [zero, scalar('first', 0), ints('rest', [2, -1])];
    const model = tinyModel({ ...base, inputs: [info('x', [3, 4, 6])], nodes, initializers });
    const collapsed = await collapse(model, () => ({ x: tensorFeed([3, 4, 6]) }), [3]);
    expect(opsOf(collapsed)).toEqual(['Reshape']);
    expect(shapeOf(collapsed, 0)).toEqual([3, 2, -1]);
  });

  it('returns the model as it is when it only runs at one size', async () => {
    const nodes = [op('Shape x -> s'), op('Add w x -> t'), op('Reshape t s -> y')];
    const model = tinyModel({ ...base, nodes, initializers: [weights('w', [3, 4, 6])] });
    const collapsed = await collapse(model, feeds, [3]);
    expect(opsOf(collapsed)).toContain('Shape');
  });

  it('leaves packed and quantized constants packed, and random values random', async () => {
    const codes = makeTensor(
      'codes',
      DataType.UINT8,
      [40, 60],
      new Uint8Array(2400).map((_, i) => i),
    );
    const nodes = [
      op('Cast codes -> w', [intAttribute('to', DataType.FLOAT)]),
      op('DequantizeLinear codes scale -> q'),
      op('RandomUniform -> r', [intsAttribute('shape', [1])]),
      op('MatMul x w -> a'),
      op('MatMul x q -> b'),
      op('Mul r zeros -> n'),
      op('Sum a b n -> y'),
    ];
    const initializers = [
      codes,
      makeTensor('scale', DataType.FLOAT, [], [0.1]),
      makeTensor('zeros', DataType.FLOAT, [1], [0]),
    ];
    const model = tinyModel({ inputs: [info('x', ['N', 40])], outputs: [info('y')], nodes, initializers });
    const collapsed = await collapse(model, (n) => ({ x: tensorFeed([n, 40]) }));
    expect(opsOf(collapsed)).toEqual(opsOf(model));
  });

  it('passes on what the caller does wrong', async () => {
    const model = tinyModel({ ...base, nodes: [op('Upper x -> y', [stringAttribute('a', 'b')])] });
    await expect(collapseShapes(engine, model, feeds)).resolves.toBe(model);
    const fail = (): Feeds => {
      throw new TypeError('no feeds');
    };
    await expect(collapseShapes(engine, model, fail)).rejects.toThrow('no feeds');
  });
});
