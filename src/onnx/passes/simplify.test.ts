import { create } from '@bufbuild/protobuf';
import { TensorProtoSchema, type NodeProto, type TensorProto } from 'onnx-buf';
import { describe, expect, it } from 'vitest';
import { traceShapes } from '../../runtime/trace.js';
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
import { intAttribute, intsAttribute } from '../attributes.js';
import { DataType } from '../dtypes.js';
import { Graph, rewrite } from '../graph.js';
import { makeTensor } from '../tensor.js';
import { validateModel } from '../validate.js';
import { shareInitializers } from './share-initializers.js';
import { simplify } from './simplify.js';

const dims = [2, 3, 4];
const perm = (...axes: number[]) => [intsAttribute('perm', axes)];
const to = (type: DataType) => [intAttribute('to', type)];

interface Case {
  what: string;
  nodes: NodeProto[];
  initializers?: TensorProto[];
  ops: string[];
}

const CASES: Case[] = [
  {
    what: 'chains of Reshape',
    nodes: [op('Flatten x -> a'), op('Reshape a s -> b'), op('Reshape b t -> y')],
    initializers: [ints('s', [6, 4]), ints('t', [4, -1])],
    ops: ['Reshape'],
  },
  {
    what: 'no Reshape that copies a size',
    nodes: [op('Reshape x s -> b'), op('Reshape b t -> y')],
    initializers: [ints('s', [6, 4]), ints('t', [0, 2, 2])],
    ops: ['Reshape', 'Reshape'],
  },
  {
    what: 'a Reshape behind one that is read elsewhere',
    nodes: [op('Reshape x s -> b'), op('Reshape b t -> c'), op('Relu b -> d'), op('Add c d -> y')],
    initializers: [ints('s', [6, 4]), ints('t', [1, 6, 4])],
    ops: ['Reshape', 'Reshape', 'Relu', 'Add'],
  },
  {
    what: 'Transposes that cancel',
    nodes: [
      op('Relu x -> r'),
      op('Transpose r -> a', perm(1, 2, 0)),
      op('Transpose a -> b', perm(2, 0, 1)),
      op('Neg b -> y'),
    ],
    ops: ['Relu', 'Neg'],
  },
  {
    what: 'Transposes that cancel up to an output',
    nodes: [op('Relu x -> r'), op('Transpose r -> a', perm(1, 2, 0)), op('Transpose a -> y', perm(2, 0, 1))],
    ops: ['Relu'],
  },
  {
    what: 'three Transposes into one',
    nodes: [
      op('Transpose x -> a', perm(1, 2, 0)),
      op('Transpose a -> b', perm(0, 2, 1)),
      op('Transpose b -> y', perm(1, 0, 2)),
    ],
    ops: ['Transpose'],
  },
  {
    what: 'Unsqueeze and Squeeze of the same axes',
    nodes: [op('Unsqueeze x s -> a'), op('Squeeze a t -> b'), op('Neg b -> y')],
    initializers: [ints('s', [0, 2]), ints('t', [2, 0])],
    ops: ['Neg'],
  },
  {
    what: 'no Unsqueeze and Squeeze of other axes',
    nodes: [op('Unsqueeze x s -> a'), op('Unsqueeze a s -> b'), op('Squeeze b t -> y')],
    initializers: [ints('s', [0]), ints('t', [1])],
    ops: ['Unsqueeze', 'Unsqueeze', 'Squeeze'],
  },
  {
    what: 'a Cast to the same type',
    nodes: [
      op('Cast x -> a', to(DataType.FLOAT)),
      op('Cast a -> b', to(DataType.INT32)),
      op('Abs b -> c'),
      op('Cast c -> d', to(DataType.INT32)),
      op('Cast d -> y', to(DataType.FLOAT)),
    ],
    ops: ['Cast', 'Abs', 'Cast'],
  },
  {
    what: 'constants and Identity',
    nodes: [op('Identity x -> a'), op('Identity a -> b'), op('Add b w -> y')],
    initializers: [weights('w', [4])],
    ops: ['Add'],
  },
  {
    what: 'not the only node between input and output',
    nodes: [op('Transpose x -> y', perm(0, 1, 2))],
    ops: ['Transpose'],
  },
];

describe('simplify', () => {
  it.each(CASES)('merges $what', async ({ nodes, initializers = [], ops }) => {
    const model = tinyModel({ inputs: [info('x', dims)], outputs: [info('y')], nodes, initializers });
    const feeds = { x: tensorFeed(dims) };
    const types = await traceShapes(engine, model, feeds);
    let removed = 0;
    const simple = rewrite(model, (graph) => {
      removed = simplify(graph, types);
    });
    validateModel(simple);
    expect(opsOf(simple)).toEqual(ops);
    expect(removed).toBe(nodes.length - ops.length);
    expect(distance(await run(model, feeds), await run(simple, feeds))).toBe(0);
  });

  it('works without traced types, where the file tells the type', () => {
    const nodes = [op('Cast x -> a', to(DataType.FLOAT)), op('NonZero a -> b'), op('Cast b -> y', to(DataType.INT64))];
    const model = tinyModel({ inputs: [info('x', dims)], outputs: [info('y', undefined, DataType.INT64)], nodes });
    expect(opsOf(rewrite(model, (graph) => void simplify(graph)))).toEqual(['NonZero', 'Cast']);
  });
});

describe('shareInitializers', () => {
  it('shares equal contents of equal type and shape only', async () => {
    const typed = create(TensorProtoSchema, {
      name: 'typed',
      dataType: DataType.FLOAT,
      dims: [4n],
      floatData: [...weightsOf()],
    });
    const initializers = [
      makeTensor('a', DataType.FLOAT, [4], weightsOf()),
      makeTensor('b', DataType.FLOAT, [4], weightsOf()),
      typed,
      makeTensor('row', DataType.FLOAT, [1, 4], weightsOf()),
      makeTensor('bits', DataType.INT32, [4], new Int32Array(weightsOf().buffer)),
      makeTensor(
        'other',
        DataType.FLOAT,
        [4],
        weightsOf().map((v) => -v),
      ),
      makeTensor('kept', DataType.FLOAT, [4], weightsOf()),
    ];
    const nodes = [op('Cast bits -> c', to(DataType.FLOAT)), op('Sum x a b typed row other c -> y')];
    const outputs = [info('y'), info('kept')];
    const model = tinyModel({ inputs: [info('x', dims)], outputs, nodes, initializers });
    let saved = 0;
    const shared = rewrite(model, (graph) => {
      saved = shareInitializers(graph);
      graph.removeDead();
    });
    expect(saved).toBe(32);
    expect(shared.graph!.initializer.map((t) => t.name)).toEqual(['a', 'row', 'bits', 'other', 'kept']);
    const feeds = { x: tensorFeed(dims) };
    expect(distance(await run(model, feeds), await run(shared, feeds))).toBe(0);
  });
});

function weightsOf(): Float32Array<ArrayBuffer> {
  return Float32Array.of(0.5, -1.25, 3, 1e-3);
}

it('leaves a Reshape to a computed shape before another Reshape: it may be there for its order', () => {
  const model = tinyModel({
    inputs: [info('x', [2, 3]), info('s', [2], DataType.INT64)],
    outputs: [info('y', [6])],
    nodes: [op('Reshape x s -> a'), op('Reshape a flat -> y')],
    initializers: [ints('flat', [6])],
  });
  const graph = new Graph(model);
  simplify(graph);
  expect(opsOf(graph.toModel())).toEqual(['Reshape', 'Reshape']);
});
