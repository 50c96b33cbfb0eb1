import { describe, expect, it } from 'vitest';
import type { ModelProto } from 'onnx-buf';
import { floatAttribute, intAttribute, intsAttribute } from '../../onnx/attributes.js';
import { DataType } from '../../onnx/dtypes.js';
import { Graph } from '../../onnx/graph.js';
import { makeTensor } from '../../onnx/tensor.js';
import { traceShapes } from '../../runtime/trace.js';
import { engine, info, ints, op, tensorFeed, tinyModel, weights } from '../../testing/graph-writing.js';
import { int8Candidates } from './candidates.js';
import { layersBetweenQuantizers, quantizedValues, quantizerGroups } from './quantized-values.js';

const scalar = (name: string, value: number) => makeTensor(name, DataType.FLOAT, [], Float32Array.of(value));
const kernel = intsAttribute('kernel_shape', [2, 2]);

/** Two branches, one clamped at 6, joined, pooled and classified. */
const network: ModelProto = tinyModel({
  inputs: [info('x', ['N', 3, 8, 8])],
  outputs: [info('y', ['N', 5])],
  initializers: [
    weights('w1', [8, 3, 1, 1]),
    weights('w2', [8, 3, 1, 1]),
    weights('dw', [16, 1, 1, 1]),
    weights('fc', [16, 5]),
    weights('bias', [5]),
    scalar('zero', 0),
    scalar('six', 6),
    ints('flat', [0, -1]),
  ],
  nodes: [
    op('Conv x w1 -> c1'),
    op('Relu c1 -> r1'),
    op('Conv x w2 -> c2'),
    op('Clip c2 zero six -> r2'),
    op('Concat r1 r2 -> joined', [intAttribute('axis', 1)]),
    op('MaxPool joined -> pooled', [kernel]),
    op('Conv pooled dw -> depth', [intAttribute('group', 16)]),
    op('GlobalAveragePool depth -> mean'),
    op('Reshape mean flat -> row'),
    op('MatMul row fc -> product'),
    op('Add product bias -> y'),
  ],
});

const ALL = ['c1', 'c2', 'depth', 'joined', 'mean', 'pooled', 'product', 'row'];

async function candidatesOf(model: ModelProto, target: 'cpu' | 'wasm' | 'webgpu' = 'cpu') {
  const shapes = await traceShapes(engine, model, { x: tensorFeed([1, 3, 8, 8]) });
  return int8Candidates(new Graph(model), shapes, target);
}

describe('int8Candidates', () => {
  it('lists what the engine can fuse, with what disappears into it', async () => {
    const found = await candidatesOf(network);
    expect([...found.keys()].sort()).toEqual(ALL);
    expect(found.get('depth')!.slow).toBe(true);
    expect(found.get('c1')!.slow).toBe(false);
    expect(found.get('c1')!.unit.map((n) => n.opType)).toEqual(['Conv', 'Relu']);
    expect(found.get('product')!.unit.map((n) => n.opType)).toEqual(['MatMul', 'Add']);
    expect(found.get('row')!.kind).toBe('move');
  });

  it('has none for targets without int8 kernels', async () => {
    expect((await candidatesOf(network, 'webgpu')).size).toBe(0);
    expect((await candidatesOf(network, 'wasm')).size).toBe(ALL.length);
  });

  it('leaves out integers, computed weights, scaled Gemms and rounded outputs', async () => {
    const model = tinyModel({
      inputs: [info('x', [1, 3, 8, 8])],
      outputs: [info('sum'), info('y')],
      initializers: [weights('w', [3, 3, 1, 1]), weights('fc', [192, 4]), ints('rows', [1, -1])],
      nodes: [
        op('Shape x -> shape'),
        op('Concat shape shape -> shapes', [intAttribute('axis', 0)]),
        op('Size shapes -> unused'),
        op('Sigmoid w -> computed'),
        op('Conv x computed -> c'),
        op('Add c x -> sum'),
        op('Reshape x rows -> flat'),
        op('Gemm flat fc -> y', [floatAttribute('alpha', 0.5)]),
      ],
    });
    expect([...(await candidatesOf(model)).keys()]).toEqual(['flat']);
  });
});

describe('int8Candidates of Gemm outputs', () => {
  const gemms = (second: string) =>
    tinyModel({
      inputs: [info('x', [1, 3, 8, 8])],
      outputs: [info('a'), info('y')],
      initializers: [weights('w', [192, 4]), weights('v', [4, 4])],
      nodes: [op('Flatten x -> flat'), op('Gemm flat w -> a'), op(second)],
    });

  it('may be read by the caller and by float nodes, not by int8 ones as well', async () => {
    expect([...(await candidatesOf(gemms('Tanh a -> y'))).keys()]).toEqual(['flat', 'a']);
    expect([...(await candidatesOf(gemms('Gemm a v -> y'))).keys()]).toEqual(['flat', 'y']);
  });
});

describe('quantizedValues', () => {
  it('rounds the result of a Gemm for all readers as soon as one is int8', () => {
    const gemms = tinyModel({
      inputs: [info('x', [1, 4])],
      outputs: [info('y')],
      initializers: [weights('w', [4, 4])],
      nodes: [op('Gemm x w -> a'), op('Gemm a w -> b'), op('Tanh a -> t'), op('Add b t -> y')],
    });
    const found = (int8: string[]) =>
      quantizedValues(new Graph(gemms), new Set(int8)).map((q) => [q.value.name, q.readers.length]);
    expect(found(['a'])).toEqual([['x', 1]]);
    expect(found(['a', 'b'])).toEqual([
      ['x', 1],
      ['a', 2],
    ]);
  });

  it('stands behind clamps, and leaves results of MatMul in float unless all readers are int8', () => {
    const graph = new Graph(network);
    const found = quantizedValues(graph, new Set(ALL));
    expect(found.map((q) => q.value.name).sort()).toEqual([
      'depth',
      'joined',
      'mean',
      'pooled',
      'r1',
      'r2',
      'row',
      'x',
    ]);
    expect(found.find((q) => q.value.name === 'x')!.madeInInt8).toBe(false);
    expect(found.find((q) => q.value.name === 'r1')!.madeInInt8).toBe(true);
    expect(found.some((q) => q.guarded)).toBe(false);
    // A float pool keeps its quantizer at a distance.
    const behindPool = quantizedValues(graph, new Set(['depth'])).find((q) => q.value.name === 'pooled');
    expect(behindPool!.guarded).toBe(true);
  });

  it('rounds a float value for its int8 readers only, and an int8 value for all', () => {
    const model = tinyModel({
      inputs: [info('x', [1, 4])],
      outputs: [info('y', [1, 4])],
      nodes: [op('Tanh x -> t'), op('Sigmoid t -> s'), op('Add t s -> a'), op('Tanh a -> u'), op('Sub u s -> y')],
    });
    const readers = (int8: string[]) =>
      Object.fromEntries(
        quantizedValues(new Graph(model), new Set(int8)).map((q) => [
          q.value.name,
          q.readers.map((u) => u.node.opType).sort(),
        ]),
      );
    expect(readers(['s'])).toEqual({ t: ['Sigmoid'], s: ['Add', 'Sub'] });
    expect(readers(['s', 'a'])).toEqual({ t: ['Add', 'Sigmoid'], s: ['Add', 'Sub'], a: ['Tanh'] });
  });
});

describe('layersBetweenQuantizers', () => {
  const names = (int8: string[]) =>
    layersBetweenQuantizers(new Graph(network), new Set(int8)).map((n) => n.outputs[0]!.name);

  it('are float layers with int8 before and behind them', () => {
    expect(names(['joined', 'pooled', 'mean'])).toEqual(['depth']);
    // c1 reads the float input; what it makes is rounded for the Concat.
    expect(names(['joined'])).toEqual([]);
    expect(names(['joined', 'pooled', 'depth', 'mean'])).toEqual([]);
    expect(names(['joined', 'pooled'])).toEqual([]);
  });
});

describe('quantizerGroups', () => {
  const groups = (int8: string[]) => quantizerGroups(new Graph(network), new Set(int8)).map((g) => g.sort());

  it('joins what a node only moves, but not operands of a Concat that different clamps bound', () => {
    expect(groups(ALL).sort()).toEqual([
      ['joined', 'pooled'],
      ['mean', 'row'],
    ]);
    expect(groups(['c1', 'c2', 'mean'])).toEqual([]);
  });

  it('joins operands of a Concat under one clamp, and whatever those are moved to', () => {
    const model = tinyModel({
      inputs: [info('a', [1, 4]), info('b', [1, 4])],
      outputs: [info('y')],
      initializers: [ints('axes', [0])],
      nodes: [
        op('Add a a -> s1'),
        op('Relu s1 -> r1'),
        op('Add b b -> s2'),
        op('Relu s2 -> r2'),
        op('Flatten r2 -> f2'),
        op('Concat r1 f2 -> joined', [intAttribute('axis', 1)]),
        op('Tanh joined -> y'),
      ],
    });
    const found = quantizerGroups(new Graph(model), new Set(['s1', 's2', 'f2', 'joined']));
    expect(found.map((g) => g.sort())).toEqual([['f2', 'joined', 'r1', 'r2']]);
  });
});
