/** Heads as units, however the projections are written. */
import type { ModelProto, NodeProto, TensorProto } from 'onnx-buf';
import { describe, expect, it } from 'vitest';
import { intAttribute, intsAttribute } from '../onnx/attributes.js';
import { info, ints, op, tensorFeed, tinyModel, weights } from '../testing/graph-writing.js';
import { cutAndCheck } from '../testing/random-cuts.js';

const ATTENTION = { x: tensorFeed([2, 5, 12]) };

/** x [N, 5, 12] -> attention as given by `nodes`, which end in c [N, 5, 12] -> y. */
function attention(nodes: NodeProto[], stored: TensorProto[]): ModelProto {
  return tinyModel({
    inputs: [info('x', ['N', 5, 12])],
    outputs: [info('y', ['N', 5, 12])],
    nodes: [...nodes, op('MatMul c wo -> y', [], 'out')],
    initializers: [weights('wo', [12, 12], 9), ...stored],
  });
}

const perm = (...order: number[]) => [intsAttribute('perm', order)];
const softmax = op('Softmax s -> p', [intAttribute('axis', -1)]);
const merge = [op('Transpose o -> m', perm(0, 2, 1, 3)), op('Reshape m join -> c')];

describe('attention', () => {
  it('has heads as units: separate projections', async () => {
    const head = (part: string, order: number[]) => [
      op(`MatMul x w${part} -> a${part}`, [], part),
      op(`Reshape a${part} heads -> b${part}`),
      op(`Transpose b${part} -> ${part}`, perm(...order)),
    ];
    const model = attention(
      [
        ...head('q', [0, 2, 1, 3]),
        ...head('k', [0, 2, 3, 1]),
        ...head('v', [0, 2, 1, 3]),
        op('MatMul q k -> s'),
        softmax,
        op('MatMul p v -> o'),
        ...merge,
      ],
      [
        ...['q', 'k', 'v'].map((part, i) => weights(`w${part}`, [12, 12], i + 2)),
        ints('heads', [0, 5, 3, 4]),
        ints('join', [0, 5, 12]),
      ],
    );
    const { dependencies, effect } = await cutAndCheck(model, ATTENTION);
    expect(dependencies.groups.map(({ kind, layers, units }) => [kind, layers, units.length])).toEqual([
      ['heads', ['q', 'k', 'v'], 3],
    ]);
    expect(effect).toBeGreaterThan(1e-3);
  });

  it('has heads as units: one projection for all three', async () => {
    const model = attention(
      [
        op('MatMul x wqkv -> a', [], 'qkv'),
        op('Reshape a heads -> b'),
        op('Transpose b -> t', perm(2, 0, 3, 1, 4)),
        ...['q', 'k0', 'v'].map((part, i) => op(`Gather t at${String(i)} -> ${part}`, [intAttribute('axis', 0)])),
        ...[op('Transpose k0 -> k', perm(0, 1, 3, 2)), op('MatMul q k -> s'), softmax, op('MatMul p v -> o'), ...merge],
      ],
      [
        weights('wqkv', [12, 36], 2),
        ints('heads', [0, 5, 3, 3, 4]),
        ints('join', [0, 5, 12]),
        ...[0, 1, 2].map((i) => ints(`at${String(i)}`, [i], [])),
      ],
    );
    const { dependencies, effect } = await cutAndCheck(model, ATTENTION);
    expect(dependencies.groups.map(({ kind, units }) => [kind, units.length])).toEqual([['heads', 3]]);
    const slices = dependencies.groups[0]!.members.map((member) => [member.initializer, member.axis, member.slices]);
    expect(slices).toEqual([
      ['wqkv', 1, 12],
      ['wo', 0, 4],
    ]);
    expect(effect).toBeGreaterThan(1e-3);
  });

  it('has groups of query heads as units where several share keys and values', async () => {
    const model = attention(
      [
        ...[op('MatMul x wq -> aq', [], 'q'), op('Reshape aq qheads -> bq'), op('Transpose bq -> q', perm(0, 2, 1, 3))],
        ...['k', 'v'].flatMap((part) => [
          op(`MatMul x w${part} -> a${part}`, [], part),
          op(`Reshape a${part} kvheads -> b${part}`),
          op(`Transpose b${part} -> d${part}`, perm(0, 2, 1, 3)),
          op(`Unsqueeze d${part} two -> e${part}`),
          op(`Expand e${part} twice -> f${part}`),
          op(`Reshape f${part} all -> g${part}`),
        ]),
        ...[
          op('Transpose gk -> k', perm(0, 1, 3, 2)),
          op('MatMul q k -> s'),
          softmax,
          op('MatMul p gv -> o'),
          ...merge,
        ],
      ],
      [
        ...[weights('wq', [12, 12], 2), weights('wk', [12, 6], 3), weights('wv', [12, 6], 4)],
        ...[
          ints('qheads', [0, 5, 4, 3]),
          ints('kvheads', [0, 5, 2, 3]),
          ints('two', [2]),
          ints('twice', [1, 2, 2, 5, 3]),
        ],
        ...[ints('all', [0, 4, 5, 3]), ints('join', [0, 5, 12])],
      ],
    );
    const { dependencies, effect } = await cutAndCheck(model, ATTENTION);
    expect(dependencies.groups.map(({ kind, units }) => [kind, units.length])).toEqual([['heads', 2]]);
    const slices = dependencies.groups[0]!.members.map(({ initializer, slices: count }) => [initializer, count]);
    expect(slices).toEqual([
      ['wq', 6],
      ['wk', 3],
      ['wv', 3],
      ['wo', 6],
    ]);
    expect(effect).toBeGreaterThan(1e-3);
  });
});
