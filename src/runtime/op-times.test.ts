import { describe, expect, it } from 'vitest';
import { intsAttribute } from '../onnx/attributes.js';
import { nodeProfiler } from '../node/profiler.js';
import { info, op, tensorFeed, tinyModel, weights } from '../testing/graph-writing.js';
import { borderTimesOf, fitLine, measureNodes, timeOf, type OperatorEvent, type Profiler } from './op-times.js';
import type { Feeds } from './engine.js';
import type { MachineCache } from './machine-cache.js';

const padded = [intsAttribute('pads', [1, 1, 1, 1])];
const model = tinyModel({
  inputs: [info('x', ['N', 16, 8, 8])],
  outputs: [info('y'), info('z')],
  initializers: [weights('w1', [16, 16, 3, 3]), weights('w2', [16, 16, 3, 3])],
  nodes: [
    op('Conv x w1 -> a', padded, 'named like @0@'),
    op('Relu a -> b'),
    op('Conv b w2 -> c', padded),
    op('Softmax c -> y'),
    op('Tanh x -> z'),
  ],
});

describe('measureNodes', () => {
  it('takes medians and gives kernels back to the nodes they came from', async () => {
    const run = (scale: number): OperatorEvent[] => [
      { name: 'b_nchwc', op: 'Conv', micros: 10 * scale, elements: 1 },
      { name: '@2@_token_7', op: 'Conv', micros: 20 * scale, elements: 1 },
      { name: 'ReorderOutput', op: 'ReorderOutput', micros: 5 * scale, elements: 1 },
      { name: '@3@', op: 'Softmax', micros: 7 * scale, elements: 1 },
    ];
    const profiler: Profiler = { machine: 'm', profile: () => Promise.resolve([[run(1), run(100), run(2)]]) };
    const [times] = await measureNodes(profiler, model, [{}], 3);
    expect(Object.fromEntries(times!.micros)).toEqual({ b: 20, c: 40, y: 14 });
    expect(times!.total).toBe(84);
  });

  it('accounts for the kernels of a real engine', async () => {
    const batches = [1, 8].map((size) => ({ x: tensorFeed([size, 16, 8, 8]) }));
    const times = await measureNodes(nodeProfiler(1), model, batches, 5);
    expect(times).toHaveLength(2);
    for (const { micros, total } of times) {
      const attributed = [...micros.values()].reduce((a, b) => a + b, 0);
      // Only the layout changes around the convolutions belong to no node.
      expect(attributed).toBeGreaterThan(0.5 * total);
      expect([...micros.keys()]).toEqual(expect.arrayContaining(['c', 'y', 'z']));
    }
    expect(times[1]!.total).toBeGreaterThan(times[0]!.total);
  });
});

describe('border times', () => {
  it('are measured by a real engine and grow with the tensor', async () => {
    const times = await borderTimesOf(nodeProfiler(1));
    for (const time of Object.values(times)) {
      expect(timeOf(time, 0)).toBeGreaterThanOrEqual(0);
      expect(timeOf(time, 1e6)).toBeGreaterThan(0);
    }
  });

  it('come from the cache once measured, and survive a damaged one', async () => {
    const texts = new Map<string, string>();
    let measured = 0;
    const cache: MachineCache = {
      read: (key) => Promise.resolve(texts.get(key)),
      write: (key, text) => Promise.resolve(void texts.set(key, text)),
    };
    const profilerOf = (machine: string): Profiler => ({
      machine,
      profile(_model, batches) {
        measured++;
        const runsOf = (feeds: Feeds): OperatorEvent[][] => {
          const elements = feeds['x']!.data.length;
          const event = (name: string) => ({ name, op: name, micros: 4 + elements / 1000, elements });
          return [['QuantizeLinear', 'DequantizeLinear', 'Transpose', 'ReorderInput'].map(event)];
        };
        return Promise.resolve(batches.map(runsOf));
      },
    });
    const first = await borderTimesOf(profilerOf('one'), cache);
    expect(first.quantize.fixed).toBeCloseTo(4);
    expect(first.reorder.perElement).toBeCloseTo(1 / 1000);
    const once = measured;
    expect(await borderTimesOf(profilerOf('one'), cache)).toEqual(first);
    expect(measured).toBe(once);
    await borderTimesOf(profilerOf('two'), cache);
    expect(measured).toBe(2 * once);
    for (const key of texts.keys()) texts.set(key, '{"quantize": {"fixed": -1}}');
    expect(await borderTimesOf(profilerOf('one'), cache)).toEqual(first);
    for (const key of texts.keys()) texts.set(key, 'no json');
    expect(await borderTimesOf(profilerOf('one'), cache)).toEqual(first);
  });
});

describe('fitLine', () => {
  it('never goes below zero', () => {
    expect(fitLine([])).toEqual({ fixed: 0, perElement: 0 });
    expect(fitLine([{ elements: 10, micros: 5 }])).toEqual({ fixed: 5, perElement: 0 });
    expect(
      fitLine([
        { elements: 10, micros: 5 },
        { elements: 20, micros: 3 },
      ]),
    ).toEqual({ fixed: 5, perElement: 0 });
    expect(
      fitLine([
        { elements: 100, micros: 1 },
        { elements: 200, micros: 11 },
      ]).fixed,
    ).toBe(0);
  });
});
