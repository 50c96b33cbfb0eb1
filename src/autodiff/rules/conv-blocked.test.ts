import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Graph, type Value } from '../../onnx/graph.js';
import { intAttribute, intsAttribute } from '../../onnx/attributes.js';
import { convGeometry } from '../../onnx/conv-geometry.js';
import { layoutBlock } from '../../runtime/layout-block.js';
import { exposeValue } from '../../runtime/trace.js';
import { distance, engine, info, op, run, tensorFeed, tinyModel } from '../../testing/graph-writing.js';
import { INPUT_GRADIENTS } from './conv-input-gradient.js';
import { chooseForms, inputForms, weightForms, type ConvShape } from './conv-shape.js';
import { WEIGHT_GRADIENTS } from './conv-weight-gradient.js';

const block = await layoutBlock(engine);

const axis = fc
  .record({
    kernel: fc.integer({ min: 1, max: 4 }),
    stride: fc.integer({ min: 1, max: 3 }),
    dilation: fc.integer({ min: 1, max: 2 }),
    begin: fc.integer({ min: 0, max: 2 }),
    end: fc.integer({ min: 0, max: 2 }),
    more: fc.integer({ min: 0, max: 5 }),
    dense: fc.constantFrom(true, true, false),
  })
  .map((a) => {
    const reach = (a.kernel - 1) * a.dilation;
    return a.dense ? { ...a, stride: 1, begin: Math.min(a.begin, reach), end: Math.min(a.end, reach) } : a;
  })
  .map((a) => ({ ...a, size: Math.max(1, (a.kernel - 1) * a.dilation + 1 - a.begin - a.end) + a.more }));

/** As networks have them: kernels at least as long as the stride, padding within the kernel. */
const strided = axis.map((a) => {
  const kernel = Math.max(a.kernel, a.stride);
  const begin = Math.min(a.begin, kernel - 1);
  return { ...a, kernel, begin, dilation: 1, size: Math.max(1, kernel - begin - a.end) + a.more };
});

/** Channels in whole blocks and not, fewer than a block, and one per group. */
const channels = fc.oneof(
  fc.record({
    groups: fc.constant(1),
    inChannels: fc.constantFrom(1, 3, 4, 12, 16, 20, 32),
    outChannels: fc.constantFrom(4, 16, 28, 32),
  }),
  fc.constantFrom(16, 20, 32).map((count) => ({ groups: count, inChannels: count, outChannels: count })),
);

const cases = fc.record({
  axes: fc.oneof(fc.tuple(axis, axis), fc.tuple(strided, strided)),
  channels,
  samples: fc.constantFrom(1, 5, 12, 16),
});

describe.skipIf(block === undefined)('blocked gradients of a convolution', () => {
  it('equal those of plain operators', async () => {
    const seen = { blocked: 0, phases: 0, w: 0 };
    await fc.assert(
      fc.asyncProperty(cases, async ({ axes, channels: { groups, inChannels, outChannels }, samples }) => {
        const dims = { x: [samples, inChannels, ...axes.map((a) => a.size)], w: [outChannels, inChannels / groups] };
        dims.w.push(...axes.map((a) => a.kernel));
        const conv = tinyModel({
          outputs: [info('y')],
          nodes: [
            op('Conv x w -> y', [
              intAttribute('group', groups),
              intsAttribute(
                'strides',
                axes.map((a) => a.stride),
              ),
              intsAttribute(
                'dilations',
                axes.map((a) => a.dilation),
              ),
              intsAttribute('pads', [...axes.map((a) => a.begin), ...axes.map((a) => a.end)]),
            ]),
          ],
        });
        const geometry = convGeometry(new Graph(conv).nodes[0]!, dims.x, dims.w);
        const shape: ConvShape = {
          ...{ ...geometry, input: dims.x.slice(2), inChannels, outChannels, groups, samples, block },
        };
        const all = { ...dims, g: [samples, outChannels, ...geometry.output] };
        const graph = new Graph(
          tinyModel({ inputs: Object.entries(all).map(([name, size]) => info(name, size)), outputs: [], nodes: [] }),
        );
        const [x, w, g] = ['x', 'w', 'g'].map((name) => graph.mustGet(name)) as [Value, Value, Value];
        const pairs: [Value, Value][] = [];
        for (const form of ['blocked', 'phases'] as const) {
          if (!inputForms(shape).includes(form)) continue;
          pairs.push([
            INPUT_GRADIENTS[form](graph, shape, g, w),
            INPUT_GRADIENTS['conv-transpose'](graph, shape, g, w),
          ]);
          seen[form]++;
        }
        if (weightForms(shape).includes('blocked')) {
          pairs.push([WEIGHT_GRADIENTS.blocked(graph, shape, x, g), WEIGHT_GRADIENTS.taps(graph, shape, x, g)]);
          seen.w++;
        }
        for (const value of pairs.flat()) exposeValue(graph, value);
        if (pairs.length === 0) return;
        graph.dropUnreadInputs();
        const feeds = Object.fromEntries(
          graph.inputs.map(({ name }, i) => [name, tensorFeed(all[name as 'x'], i + 1)]),
        );
        const results = await run(graph.toModel(), feeds);
        for (const [blocked, plain] of pairs)
          expect(distance({ d: results[blocked.name]! }, { d: results[plain.name]! })).toBeLessThan(1e-5);
      }),
      { numRuns: 160 },
    );
    expect(seen.blocked).toBeGreaterThan(10);
    expect(seen.phases).toBeGreaterThan(10);
    expect(seen.w).toBeGreaterThan(20);
  });

  it('are chosen where they are offered', () => {
    const shape: ConvShape = {
      ...{ kernel: [3, 3], strides: [1, 1], dilations: [1, 1], padBegin: [1, 1], padEnd: [1, 1], output: [8, 8] },
      ...{ input: [8, 8], inChannels: 32, outChannels: 32, groups: 1, samples: 16, block },
    };
    expect(chooseForms(shape)).toEqual({ input: 'blocked', weight: 'blocked' });
    const strided = { ...shape, strides: [2, 2], output: [4, 4] };
    expect(chooseForms(strided)).toEqual({ input: 'phases', weight: 'blocked' });
    const single = { ...strided, kernel: [1, 1], padBegin: [0, 0], padEnd: [0, 0] };
    expect(chooseForms(single)).toEqual({ input: 'conv-transpose', weight: 'blocked' });
  });

  it('are not offered without a layout, for columns apart, or for groups of several channels', () => {
    const shape: ConvShape = {
      ...{ kernel: [3, 3], strides: [1, 1], dilations: [1, 1], padBegin: [1, 1], padEnd: [1, 1], output: [8, 8] },
      ...{ input: [8, 8], inChannels: 32, outChannels: 32, groups: 1, samples: 16, block },
    };
    expect(weightForms(shape)).toContain('blocked');
    for (const other of [
      { block: undefined },
      { samples: undefined },
      { samples: block! + 4 },
      { groups: 32, samples: 5, inChannels: 32 * 3, outChannels: 32 * 3 },
      { dilations: [1, 2] },
      { groups: 2 },
      { outChannels: 30 },
      { inChannels: 18 },
    ])
      expect(weightForms({ ...shape, ...other })).not.toContain('blocked');
    expect(inputForms({ ...shape, block: undefined })).not.toContain('blocked');
    expect(inputForms({ ...shape, strides: [2, 2] })).not.toContain('blocked');
  });
});
