import { describe, expect, it } from 'vitest';
import type { ModelProto } from 'onnx-buf';
import { distance, info, ints, op, opsOf, run, tensorFeed, tinyModel, weights } from '../../testing/graph-writing.js';
import { stringAttribute } from '../attributes.js';
import { Graph, rewrite } from '../graph.js';
import { isShortcutConv, quantizeShortcut, shortcutToConv } from './shortcut-to-conv.js';

interface Shape {
  ends?: number[];
  starts?: number[];
  pads?: number[];
  mode?: string;
  /** The padded value is an output of the model. */
  output?: boolean;
}

const CHANNELS = 3;

function residual({
  ends = [2 ** 31 - 1, 99999],
  starts = [0, 0],
  pads = [0, 2, 0, 0, 0, 1, 0, 0],
  mode,
  output,
}: Shape = {}): ModelProto {
  return tinyModel({
    inputs: [info('x', ['N', CHANNELS, 'H', 'W'])],
    outputs: output ? [info('padded', ['N', 'C', 'h', 'w'])] : [info('y', ['N', 'C', 'h', 'w'])],
    initializers: [
      weights('w', [CHANNELS, CHANNELS, 1, 1]),
      ints('starts', starts),
      ints('ends', ends),
      ints('axes', [2, -1]),
      ints('steps', [2, 3]),
      ints('pads', pads),
    ],
    nodes: [
      op('Conv x w -> c'),
      op('Slice c starts ends axes steps -> sliced'),
      op('Pad sliced pads -> padded', mode ? [stringAttribute('mode', mode)] : []),
      ...(output ? [] : [op('Relu padded -> y')]),
    ],
  });
}

const dimsOf = (): number[] => [1, CHANNELS, 7, 8];

function converted(model: ModelProto): { model: ModelProto; replaced: number } {
  let replaced = 0;
  const result = rewrite(model, (graph) => {
    replaced = shortcutToConv(graph, dimsOf);
  });
  return { model: result, replaced };
}

describe('shortcutToConv', () => {
  it.each([{}, { output: true }])('gives exactly the same values for any size (%o)', async (shape) => {
    const before = residual(shape);
    const { model, replaced } = converted(before);
    expect(replaced).toBe(1);
    expect(opsOf(model)).not.toContain('Pad');
    expect(opsOf(model)).not.toContain('Slice');
    for (const dims of [
      [1, CHANNELS, 7, 8],
      [2, CHANNELS, 4, 9],
    ]) {
      const feeds = { x: tensorFeed(dims) };
      expect(distance(await run(before, feeds), await run(model, feeds))).toBe(0);
    }
  });

  it('keeps the name of the value', () => {
    const graph = new Graph(converted(residual()).model);
    expect(isShortcutConv(graph.mustGet('padded').producer!)).toBe(true);
    expect(isShortcutConv(graph.mustGet('c').producer!)).toBe(false);
  });

  it('has an int8 form with the same values', async () => {
    const { model } = converted(residual());
    const int8 = rewrite(model, (graph) => {
      for (const node of graph.nodes) quantizeShortcut(graph, node);
      graph.removeDead();
    });
    expect(opsOf(int8)).toContain('DequantizeLinear');
    const feeds = { x: tensorFeed([2, CHANNELS, 7, 8]) };
    expect(distance(await run(model, feeds), await run(int8, feeds))).toBe(0);
  });

  it.each<[string, Shape]>([
    ['a crop', { ends: [6, 99999] }],
    ['an offset', { starts: [1, 0] }],
    ['padded pixels', { pads: [0, 2, 1, 0, 0, 1, 0, 0] }],
    ['removed channels', { pads: [0, -1, 0, 0, 0, 1, 0, 0] }],
    ['no padding', { pads: [0, 0, 0, 0, 0, 0, 0, 0] }],
    ['repeated edges', { mode: 'edge' }],
  ])('leaves %s alone', (_, shape) => {
    const before = residual(shape);
    const { model, replaced } = converted(before);
    expect(replaced).toBe(0);
    expect(opsOf(model)).toEqual(opsOf(before));
  });
});
