/** Residual blocks are found by what lies between an addition and its skip. */
import { describe, expect, it } from 'vitest';
import { intsAttribute } from '../onnx/attributes.js';
import { Graph, type Value } from '../onnx/graph.js';
import { findLayers } from '../onnx/layers.js';
import { Builder } from '../testing/flow-models.js';
import { findBlocks, type ResidualBlock } from './blocks.js';

function blocksOf(write: (b: Builder, x: Value) => Value, channels = 4): readonly ResidualBlock[] {
  const b = new Builder();
  const model = b.done(write(b, b.input('x', [channels, 8, 8])));
  const graph = new Graph(model);
  return findBlocks(graph, findLayers(graph));
}

const branch = (b: Builder, x: Value): Value => b.conv(b.op('Relu', [b.conv(x, [4, 4, 3, 3])]), [4, 4, 3, 3]);

describe('findBlocks', () => {
  it.each([0, 1])('identity skip as operand %i', (at) => {
    const [block, ...more] = blocksOf((b, x) => {
      const operands = [branch(b, x)];
      operands.splice(at, 0, x);
      return b.op('Add', operands);
    });
    expect(more).toEqual([]);
    expect(block).toMatchObject({ identity: true });
    expect(block!.source.name).toBe('x');
    expect(block!.skip.name).toBe('x');
    expect(block!.layers).toHaveLength(2);
  });

  it('a chain of blocks, each from the one before', () => {
    const blocks = blocksOf((b, x) => {
      let y = x;
      for (let i = 0; i < 3; i++) y = b.op('Add', [branch(b, y), y]);
      return y;
    });
    expect(blocks.map((block) => block.layers.length)).toEqual([2, 2, 2]);
    expect(blocks[2]!.source).toBe(blocks[1]!.output);
  });

  it('1x1 projection shortcut', () => {
    const [block] = blocksOf((b, x) => b.op('Add', [b.conv(x, [4, 4, 1, 1]), branch(b, x)]));
    expect(block).toMatchObject({ identity: false });
    expect(block!.source.name).toBe('x');
    expect(block!.shortcut?.dims).toEqual([4, 4, 1, 1]);
    expect(block!.layers.map((layer) => layer.dims[2])).toEqual([3, 3]);
  });

  it('option A: strided slice and zero channels', () => {
    const [block] = blocksOf((b, x) => {
      const sliced = b.op('Slice', [x, b.ints([0, 0]), b.ints([8, 8]), b.ints([2, 3]), b.ints([2, 2])]);
      const padded = b.op('Pad', [sliced, b.ints([0, 2, 0, 0, 0, 2, 0, 0])]);
      const deep = b.conv(b.op('Relu', [b.conv(x, [8, 4, 3, 3], 2)]), [8, 8, 3, 3]);
      return b.op('Add', [deep, padded]);
    });
    expect(block).toMatchObject({ identity: false });
    expect(block!.shortcut).toBeUndefined();
    expect(block!.source.name).toBe('x');
  });

  it('parallel branches from one source', () => {
    const blocks = blocksOf((b, x) => b.op('Add', [b.op('Add', [x, branch(b, x)]), b.conv(x, [4, 4, 3, 3])]));
    expect(blocks.map((block) => [block.source.name, block.identity])).toEqual([
      ['x', true],
      ['x', true],
    ]);
    expect(blocks[1]!.skip).toBe(blocks[0]!.output);
  });

  it('a branch that also reads something else is still a branch', () => {
    const b = new Builder();
    const x = b.input('x', [4, 8, 8]);
    const time = b.input('t', [4, 1, 1]);
    const inner = b.op('Add', [b.conv(x, [4, 4, 3, 3]), time]);
    const graph = new Graph(b.done(b.op('Add', [b.conv(b.op('Relu', [inner]), [4, 4, 3, 3]), x])));
    const blocks = findBlocks(graph, findLayers(graph));
    expect(blocks).toHaveLength(1);
    expect(blocks[0]!.layers).toHaveLength(2);
  });

  it('sums without a layer between, side-by-side projections and upsampled merges are no blocks', () => {
    expect(blocksOf((b, x) => b.op('Add', [x, b.op('Sigmoid', [x])]))).toEqual([]);
    expect(blocksOf((b, x) => b.op('Add', [b.conv(x, [4, 4, 1, 1]), b.conv(x, [4, 4, 1, 1])]))).toEqual([]);
    const merged = blocksOf((b, x) => {
      const deep = b.conv(x, [4, 4, 3, 3], 2);
      const up = b.op('ConvTranspose', [deep, b.weight([4, 4, 2, 2])], [intsAttribute('strides', [2, 2])]);
      return b.op('Add', [b.conv(x, [4, 4, 1, 1]), up]);
    });
    expect(merged).toEqual([]);
  });

  it('10,000 nodes with short and long skips take no time', () => {
    const b = new Builder();
    let y = b.input('x', [4, 8, 8]);
    const weight = b.weight([4, 4, 1, 1]);
    const past: Value[] = [];
    for (let i = 0; i < 2500; i++) {
      const inner = b.op('Relu', [b.op('Conv', [y, weight])]);
      const sum = b.op('Add', [i % 7 === 6 && past.length > 60 ? past[past.length - 60]! : y, inner]);
      past.push(sum);
      y = b.op('Tanh', [sum]);
    }
    const graph = new Graph(b.done(y));
    const layers = findLayers(graph);
    const start = performance.now();
    expect(findBlocks(graph, layers).length).toBeGreaterThan(2000);
    expect(performance.now() - start).toBeLessThan(3000);
  });
});
