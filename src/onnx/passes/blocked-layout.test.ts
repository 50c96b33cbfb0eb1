import fc from 'fast-check';
import type { ModelProto, NodeProto, ValueInfoProto } from 'onnx-buf';
import { describe, expect, it } from 'vitest';
import { inferShapes } from '../../runtime/infer-shapes.js';
import { layoutBlock } from '../../runtime/layout-block.js';
import {
  distance,
  engine,
  info,
  ints,
  noise,
  op,
  opsOf,
  run,
  tensorFeed,
  tinyModel,
} from '../../testing/graph-writing.js';
import { floatAttribute, intAttribute, intsAttribute } from '../attributes.js';
import { rewrite } from '../graph.js';
import { makeTensor } from '../tensor.js';
import { blockConvolutions } from './block-convs.js';
import { fuseBlocked } from './fuse-blocked.js';
import { keepBlocked } from './keep-blocked.js';

const block = await layoutBlock(engine);

const pads = intsAttribute('pads', [1, 1, 1, 1]);

/** The model in blocks: after the first pass, the first two, and all three. */
async function lowered(model: ModelProto): Promise<[ModelProto, ModelProto, ModelProto]> {
  const shapes = await inferShapes(engine, model);
  const first = rewrite(model, (graph) => void blockConvolutions(graph, block!, new Map(shapes)));
  const second = rewrite(model, (graph) => {
    const all = new Map(shapes);
    blockConvolutions(graph, block!, all);
    keepBlocked(graph, block!, all);
    graph.removeDead();
  });
  return [first, second, rewrite(second, (graph) => void fuseBlocked(graph))];
}

interface Given {
  readonly inputs: Readonly<Record<string, readonly number[]>>;
  readonly nodes: NodeProto[];
  readonly outputs?: ValueInfoProto[];
}

const modelOf = ({ inputs, nodes, outputs = [info('y')] }: Given): ModelProto =>
  tinyModel({
    inputs: Object.entries(inputs).map(([name, dims]) => info(name, dims)),
    outputs,
    nodes,
    initializers: [
      makeTensor('two', 1, [], [2]),
      ...[ints('over', [0, 2, 3]), ints('across', [2, 3]), ints('behind', [-1, 0, -2]), ints('along', [1])],
    ],
  });

/** Runs all forms on the same numbers; returns the operators of the last. */
async function expectEqual(given: Given): Promise<string[]> {
  const model = modelOf(given);
  const feeds = Object.fromEntries(
    Object.entries(given.inputs).map(([name, dims], i) => [name, tensorFeed(dims, i + 3)]),
  );
  const expected = await run(model, feeds);
  const forms = await lowered(model);
  for (const form of forms) expect(distance(await run(form, feeds), expected)).toBeLessThan(2e-5);
  return opsOf(forms[2]);
}

const count = (ops: readonly string[], name: string): number => ops.filter((each) => each === name).length;

describe.skipIf(block === undefined)('the blocked layout', () => {
  it('computes the same convolutions', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.record({
          inner: fc.constantFrom(1, 3, 4, 8, 16, 20, 32),
          outer: fc.constantFrom(8, 10, 16, 20, 32),
          kernel: fc.tuple(fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 3 })),
          stride: fc.integer({ min: 1, max: 2 }),
          dilation: fc.integer({ min: 1, max: 2 }),
          pads: fc.array(fc.integer({ min: 0, max: 2 }), { minLength: 4, maxLength: 4 }),
          biased: fc.boolean(),
        }),
        async (c) => {
          const attributes = [
            intsAttribute('strides', [c.stride, c.stride]),
            intsAttribute('dilations', [c.dilation, c.dilation]),
            intsAttribute('pads', c.pads),
          ];
          const ops = await expectEqual({
            inputs: {
              ...{ x: [2, c.inner, 6, 7], w: [c.outer, c.inner, ...c.kernel] },
              ...(c.biased && { b: [c.outer] }),
            },
            nodes: [op(`Conv x w ${c.biased ? 'b ' : ''}-> y`, attributes)],
          });
          expect(count(ops, 'ReorderOutput')).toBe(c.outer < block! / 2 ? 0 : c.inner === 20 && block! > 20 ? 0 : 1);
        },
      ),
      { numRuns: 40 },
    );
  });

  it('computes convolutions with a channel per group', async () => {
    for (const channels of [8, 16, 20, 32]) {
      const ops = await expectEqual({
        inputs: { x: [2, channels, 6, 7], w: [channels, 1, 3, 2], b: [channels] },
        nodes: [
          op('Conv x w b -> y', [
            intAttribute('group', channels),
            intsAttribute('strides', [1, 2]),
            intsAttribute('pads', [1, 0, 0, 1]),
          ]),
        ],
      });
      expect(count(ops, 'ReorderOutput')).toBe(1);
    }
  });

  it('leaves convolutions of few results, of odd channels, of groups and of constant weights alone', async () => {
    const untouched: Given[] = [
      { inputs: { x: [1, 4, 5, 5], w: [3, 4, 3, 3] }, nodes: [op('Conv x w -> y')] },
      { inputs: { x: [1, 18, 5, 5], w: [16, 18, 3, 3] }, nodes: [op('Conv x w -> y')] },
      { inputs: { x: [1, 32, 5, 5], w: [32, 16, 3, 3] }, nodes: [op('Conv x w -> y', [intAttribute('group', 2)])] },
      { inputs: { x: [1, 32, 5, 5], w: [16, 2, 3, 3] }, nodes: [op('Conv x w -> y', [intAttribute('group', 16)])] },
      { inputs: { x: [1, 16, 9], w: [16, 16, 3] }, nodes: [op('Conv x w -> y')] },
    ];
    for (const given of untouched) expect(await expectEqual(given)).toEqual(['Conv']);
    const fixed = tinyModel({
      inputs: [info('x', [1, 16, 5, 5])],
      outputs: [info('y')],
      nodes: [op('Conv x w -> y')],
      initializers: [makeTensor('w', 1, [16, 16, 1, 1], noise(256))],
    });
    const shapes = await inferShapes(engine, fixed);
    shapes.set('w', [16, 16, 1, 1]);
    expect(opsOf(rewrite(fixed, (graph) => void blockConvolutions(graph, block!, shapes)))).toEqual(['Conv']);
  });

  const convs = { x: [3, 16, 6, 6], v: [20, 16, 3, 3], w: [20, 20, 3, 3] } as const;
  const between = (nodes: NodeProto[], more: Given['inputs'] = {}): Given => ({
    inputs: { ...convs, ...more },
    nodes: [op('Conv x v -> a', [pads]), ...nodes, op('Conv b w -> y', [pads])],
  });

  it.each([
    ['an activation', [op('Relu a -> b')], {}],
    ['a chain', [op('Sigmoid a -> s'), op('Mul s a -> m'), op('Mul m two -> b')], {}],
    ['a gate', [op('Greater a two -> p'), op('Cast p -> f', [intAttribute('to', 1)]), op('Mul a f -> b')], {}],
    ['a factor per channel', [op('Mul a c -> b')], { c: [20, 1, 1] }],
    ['a factor in front', [op('Mul c a -> b')], { c: [1, 20, 1, 1] }],
    ['a term per channel', [op('Add a c -> b')], { c: [1, 20, 1, 1] }],
    ['a term taken away', [op('Sub a c -> b')], { c: [1, 20, 1, 1] }],
    ['a term to take from', [op('Sub c a -> b')], { c: [20, 1, 1] }],
    [
      'factors and terms',
      [op('Mul a c -> m'), op('Add m d -> n'), op('Mul n d -> b')],
      { c: [20, 1, 1], d: [20, 1, 1] },
    ],
    ['another tensor', [op('Add a z -> s'), op('Relu s -> b')], { z: [3, 20, 6, 6] }],
    ['itself', [op('Add a a -> b')], {}],
    ['factors around an activation', [op('Mul a c -> m'), op('Relu m -> r'), op('Mul r c -> b')], { c: [20, 1, 1] }],
    ['an activation beside what it reads', [op('Relu a -> r'), op('Sub r a -> b')], {}],
    ['a residual sum', [op('Mul a c -> m'), op('Add m a -> s'), op('Relu s -> b')], { c: [20, 1, 1] }],
  ] as const)('is kept through %s', async (_, nodes, more) => {
    const ops = await expectEqual(between([...nodes], more as Given['inputs']));
    expect(count(ops, 'ReorderOutput')).toBe(1);
    expect(count(ops, 'ReorderInput')).toBe('z' in more ? 2 : 1);
  });

  it('is kept through two sums with other tensors', async () => {
    const ops = await expectEqual(
      between([op('Mul a c -> m'), op('Add m z -> s'), op('Add s t -> r'), op('Mul r c -> b')], {
        ...{ c: [20, 1, 1], z: [3, 20, 6, 6], t: [3, 20, 6, 6] },
      }),
    );
    expect(count(ops, 'ReorderOutput')).toBe(1);
  });

  it('keeps the padding of convolutions that only scale', async () => {
    await expectEqual(
      between(
        [
          op('Conv a e d -> f', [intAttribute('group', 20), intsAttribute('pads', [1, 1, 1, 1])]),
          op('Mul f c -> g'),
          op('Add g c -> b'),
        ],
        { c: [20, 1, 1], d: [20], e: [20, 1, 1, 1] },
      ),
    );
  });

  it('is left for decisions and for channels that cannot be brought into blocks', async () => {
    await expectEqual(between([op('Greater a two -> p'), op('Where p a z -> b')], { z: [3, 20, 6, 6] }));
    await expectEqual({
      inputs: { x: [3, 16, 6, 6], v: [10, 16, 3, 3], z: [3, 10, 6, 6] },
      nodes: [op('Conv x v -> a', [pads]), op('Add a z -> s'), op('Relu s -> r'), op('Abs r -> y')],
    });
  });

  it('is left where something else is read', async () => {
    const ops = await expectEqual(
      between([op('Transpose a -> t', [intsAttribute('perm', [0, 1, 3, 2])]), op('Relu t -> b')]),
    );
    expect(count(ops, 'ReorderOutput')).toBe(2);
  });

  it('keeps outputs of the model', async () => {
    const given = between([op('Relu a -> b')]);
    const ops = await expectEqual({ ...given, outputs: [info('y'), info('b'), info('a')] });
    expect(count(ops, 'Relu')).toBe(1);
  });

  it.each([
    ['ReduceMean', [op('ReduceMean a -> r', [intsAttribute('axes', [0, 2, 3])])]],
    [
      'ReduceMean without the axes',
      [op('ReduceMean a -> r', [intsAttribute('axes', [0, 2, 3]), intAttribute('keepdims', 0)])],
    ],
    ['ReduceSum', [op('ReduceSum a over -> r')]],
    ['ReduceSum of every sample', [op('ReduceSum a across -> r', [intAttribute('keepdims', 0)])]],
    ['GlobalAveragePool', [op('GlobalAveragePool a -> r')]],
    ['axes from behind', [op('ReduceSum a behind -> r')]],
    ['other axes', [op('ReduceSum a along -> r')]],
  ])('gives the sums of %s', async (name, nodes) => {
    const ops = await expectEqual({ inputs: convs, nodes: [op('Conv x v -> a', [pads]), ...nodes, op('Abs r -> y')] });
    expect(count(ops, 'ReorderOutput')).toBe(name === 'other axes' ? 1 : 0);
  });

  it('normalizes by the batch', async () => {
    const numbers = Object.fromEntries(['scale', 'shift', 'mean', 'var'].map((name) => [name, [20]]));
    const ops = await expectEqual({
      ...between(
        [
          op('BatchNormalization a scale shift mean var -> n m2 v2', [
            intAttribute('training_mode', 1),
            floatAttribute('momentum', 0.7),
            floatAttribute('epsilon', 1e-3),
          ]),
          op('Relu n -> b'),
        ],
        numbers,
      ),
      outputs: [info('y'), info('m2'), info('v2')],
    });
    expect(ops).not.toContain('BatchNormalization');
    expect(ops).not.toContain('Relu');
    expect(count(ops, 'ReorderOutput')).toBe(1);
  });

  it('takes a whole residual unit into two convolutions', async () => {
    const ops = await expectEqual(
      between([op('Mul a c -> m'), op('Add m d -> n'), op('Add n z -> s'), op('Relu s -> b')], {
        ...{ c: [20, 1, 1], d: [20, 1, 1], z: [3, 20, 6, 6] },
      }),
    );
    for (const each of ['Add', 'Relu']) expect(ops).not.toContain(each);
    expect(count(ops, 'Conv')).toBe(3);
  });
});

describe('layoutBlock', () => {
  it('is a known size, asked for once', async () => {
    expect([undefined, 8, 16]).toContain(block);
    let sessions = 0;
    const counting = {
      ...engine,
      createSession: (...args: Parameters<typeof engine.createSession>) => (sessions++, engine.createSession(...args)),
    };
    expect(await Promise.all([layoutBlock(counting), layoutBlock(counting)])).toEqual([block, block]);
    expect(sessions).toBe(1);
  });

  it('is none where the engine knows no such operators', async () => {
    const without = { ...engine, createSession: () => Promise.reject(new Error('no such operator')) };
    expect(await layoutBlock(without)).toBeUndefined();
  });
});

describe('inferShapes', () => {
  it('tells sizes without a run, and which only a run can tell', async () => {
    const model = tinyModel({
      inputs: [info('x', ['N', 4, 6])],
      outputs: [info('y')],
      nodes: [op('Transpose x -> t', [intsAttribute('perm', [0, 2, 1])]), op('NonZero t -> n'), op('Relu t -> y')],
    });
    const shapes = await inferShapes(engine, model);
    expect(shapes.get('t')).toEqual([undefined, 6, 4]);
    expect(shapes.get('n')).toEqual([3, undefined]);
    expect(shapes.get('x')).toEqual([undefined, 4, 6]);
  });
});
