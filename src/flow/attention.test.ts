/** Attention is found by its pattern, with the right channels in each head. */
import { describe, expect, it } from 'vitest';
import { Graph } from '../onnx/graph.js';
import { intAttribute } from '../onnx/attributes.js';
import { findLayers } from '../onnx/layers.js';
import { nodeEngine } from '../node/onnxruntime.js';
import { traceShapes } from '../runtime/trace.js';
import { attentionModel, batchesOf, Builder, HEAD_DIM, TOKENS, type AttentionSpec } from '../testing/flow-models.js';
import { findAttention, type FoundAttention } from './attention.js';

const engine = nodeEngine({ threads: 1 });

async function find(model: ReturnType<Builder['done']>, input: string, dims: number[]): Promise<FoundAttention> {
  const { value } = await batchesOf(input, dims, 1, 1)().next();
  const shapes = await traceShapes(engine, model, value!.feeds);
  const graph = new Graph(model);
  return findAttention(graph, findLayers(graph), shapes);
}

const findIn = (spec: AttentionSpec): Promise<FoundAttention> =>
  find(attentionModel(spec), `${spec.prefix ?? ''}x`, [TOKENS, (spec.heads ?? 2) * HEAD_DIM]);

const range = (from: number): number[] => Array.from({ length: HEAD_DIM }, (_, i) => from + i);

describe('findAttention', () => {
  it.each<AttentionSpec>([
    {},
    { scale: 'both' },
    { mask: 'add' },
    { mask: 'where', scale: 'both' },
    { prefix: 'other/name/' },
    { heads: 4 },
  ])('separate projections %o', async (spec) => {
    const { blocks, untraced } = await findIn(spec);
    expect(untraced).toEqual([]);
    expect(blocks).toHaveLength(1);
    const [block] = blocks;
    const heads = spec.heads ?? 2;
    expect(block).toMatchObject({ heads, headDim: HEAD_DIM, headOfMatrix: Array.from({ length: heads }, (_, i) => i) });
    expect(new Set([block!.q.layer, block!.k.layer, block!.v.layer]).size).toBe(3);
    for (const part of [block!.q, block!.k, block!.v]) {
      expect(part.headChannels.map((set) => [...set])).toEqual(block!.headOfMatrix.map((h) => range(h * HEAD_DIM)));
    }
    expect(block!.out?.node.opType).toBe('MatMul');
    expect([block!.q.layer, block!.k.layer, block!.v.layer]).not.toContain(block!.out);
  });

  it('fused projection: one layer, its channels split in three and by head', async () => {
    const { blocks } = await findIn({ fused: true });
    const [block] = blocks;
    expect(block!.q.layer).toBe(block!.k.layer);
    expect(block!.q.layer).toBe(block!.v.layer);
    const width = 2 * HEAD_DIM;
    expect(block!.q.headChannels.map((s) => [...s])).toEqual([range(0), range(HEAD_DIM)]);
    expect(block!.k.headChannels.map((s) => [...s])).toEqual([range(width), range(width + HEAD_DIM)]);
    expect(block!.v.headChannels.map((s) => [...s])).toEqual([range(2 * width), range(2 * width + HEAD_DIM)]);
  });

  it('grouped-query attention: heads of a group share keys and values', async () => {
    const { blocks, untraced } = await findIn({ heads: 4, keyHeads: 2 });
    expect(untraced).toEqual([]);
    expect(blocks[0]!.heads).toBe(4);
    expect(blocks[0]!.k.headChannels.map((s) => s[0])).toEqual([0, 0, HEAD_DIM, HEAD_DIM]);
    expect(blocks[0]!.q.headChannels.map((s) => s[0])).toEqual([0, 1, 2, 3].map((h) => h * HEAD_DIM));
  });

  it('names a fused operator instead of guessing at it', async () => {
    const b = new Builder();
    const x = b.input('x', [TOKENS, 6]);
    const qkv = [b.weight([6, 18]), b.weight([18])];
    const fused = b.op('Attention', [x, ...qkv], [intAttribute('num_heads', 2)], 'com.microsoft');
    b.graph.requireOpset(1, 'com.microsoft');
    const { blocks, untraced } = await find(b.done(fused), 'x', [TOKENS, 6]);
    expect(blocks).toEqual([]);
    expect(untraced[0]!.reason).toContain('com.microsoft.Attention');
  });

  it('reports queries that no single layer makes', async () => {
    const b = new Builder();
    const x = b.input('x', [TOKENS, 6]);
    const keys = b.op('Transpose', [b.dense(x, 6, 6)], []);
    const turned = b.op('Reshape', [keys, b.ints([-1, 6, TOKENS])]);
    const scores = b.op('Softmax', [b.op('MatMul', [x, turned])]);
    const { blocks, untraced } = await find(b.done(b.op('MatMul', [scores, b.dense(x, 6, 6)])), 'x', [TOKENS, 6]);
    expect(blocks).toEqual([]);
    expect(untraced[0]!.reason).toContain('queries');
  });

  it('a softmax classifier is no attention', async () => {
    const b = new Builder();
    const logits = b.op('Softmax', [b.dense(b.input('x', [TOKENS, 6]), 6, 4)]);
    const { blocks, untraced } = await find(b.done(b.op('MatMul', [logits, b.weight([4, 2])])), 'x', [TOKENS, 6]);
    expect([blocks, untraced]).toEqual([[], []]);
  });
});
