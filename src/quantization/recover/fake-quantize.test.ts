import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { ModelProto } from 'onnx-buf';
import { randomStream } from '../../data/random.js';
import { DataType } from '../../onnx/dtypes.js';
import { emptyModel, Graph } from '../../onnx/graph.js';
import { tensorInfo } from '../../onnx/value-info.js';
import { gradientModel } from '../../testing/gradient-model.js';
import { run } from '../../testing/graph-writing.js';
import { array } from '../../testing/reference/array.js';
import { evaluate } from '../../testing/reference/evaluate.js';
import { declareOutput } from '../../testing/tiny-models.js';
import { codebookGrid, gridOf, type Grid } from '../grid.js';
import { codeOf, fakeQuantize, latentOf, type ChannelView } from './fake-quantize.js';

const VIEWS: readonly ChannelView[] = [
  { dims: [3, 2, 2, 2], channelAxis: 0, channels: 3 },
  { dims: [4, 5], channelAxis: 1, channels: 5 },
  { dims: [2, 3, 2, 1], channelAxis: 1, channels: 3 },
  { dims: [1, 6], channelAxis: 0, channels: 1 },
];

function roundingModel(view: ChannelView, grid: Grid): ModelProto {
  const graph = new Graph(emptyModel(17));
  const v = graph.addInput(tensorInfo('v', DataType.FLOAT, view.dims));
  const s = graph.addInput(tensorInfo('s', DataType.FLOAT, [view.channels]));
  const w = fakeQuantize(graph, view, v, s, grid);
  graph.rename(w, 'w');
  declareOutput(graph, w, view.dims);
  return graph.toModel();
}

interface Case {
  readonly view: ChannelView;
  readonly grid: Grid;
  readonly latent: Float32Array;
  readonly scales: Float32Array;
  readonly channelOf: (i: number) => number;
}

type Kind = 'whole' | 'half' | 'codebook';

function gridFor(bits: number, kind: Kind, draw: () => number): Grid {
  if (kind !== 'codebook') return gridOf(bits, kind === 'half' ? 0.5 : 0);
  const drawn = Array.from({ length: 2 ** Math.min(bits, 5) }, () => Math.round(126 * draw()) - 63);
  return codebookGrid(bits, Int8Array.from(new Set([-40, ...drawn, 50])).sort());
}

/** The level nearest to a weight in units of the scale, by trying all of them. */
function nearestLevels(steps: number, { low, high, offset, levels }: Grid): number[] {
  const all = levels ? [...levels] : Array.from({ length: high - low + 1 }, (_, k) => low + k + offset);
  const least = Math.min(...all.map((level) => Math.abs(level - steps)));
  // What v / s was rounded to before it is looked up may be half an integer off.
  return all.filter((level) => Math.abs(level - steps) <= least + (levels ? 1 + 1e-3 : 1e-4));
}

const anyKind = fc.constantFrom<Kind>('whole', 'half', 'codebook');

/** Latent weights from below the grid to above it. */
function caseOf(view: ChannelView, bits: number, kind: Kind, seed: number): Case {
  const random = randomStream(seed);
  const grid = gridFor(bits, kind, () => random.float());
  const { offset } = grid;
  const after = view.dims.slice(view.channelAxis + 1).reduce((a, b) => a * b, 1);
  const channelOf = (i: number): number => Math.floor(i / after) % view.channels;
  const scales = Float32Array.from({ length: view.channels }, () => 10 ** (4 * random.float() - 3));
  const count = view.dims.reduce((a, b) => a * b, 1);
  const latent = Float32Array.from({ length: count }, (_, i) => {
    const steps = grid.low + (grid.high - grid.low) * (1.6 * random.float() - 0.3) + offset;
    return scales[channelOf(i)]! * steps;
  });
  return { view, grid, latent, scales, channelOf };
}

const cases = fc
  .tuple(fc.constantFrom(...VIEWS), fc.integer({ min: 1, max: 8 }), anyKind, fc.nat())
  .map((given) => caseOf(...given));

describe('fake quantization', () => {
  it('rounds in the engine to the level of the code that is exported', async () => {
    await fc.assert(
      fc.asyncProperty(cases, async ({ view, grid, latent, scales, channelOf }) => {
        const { w } = await run(roundingModel(view, grid), {
          v: { type: 'float32', dims: view.dims, data: latent },
          s: { type: 'float32', dims: [view.channels], data: scales },
        });
        (w!.data as Float32Array).forEach((value, i) => {
          const scale = scales[channelOf(i)]!;
          const code = codeOf(latent[i]!, scale, grid);
          expect(Number.isInteger(code) && code >= grid.low && code <= grid.high).toBe(true);
          expect(Math.abs(value / scale - (code + grid.offset))).toBeLessThan(1e-5 * (1 + Math.abs(code)));
          expect(nearestLevels(latent[i]! / scale, grid)).toContain(code + grid.offset);
        });
      }),
      { numRuns: 40 },
    );
  });

  it('has the gradients of learned step size quantization', () => {
    fc.assert(
      fc.property(cases, ({ view, grid, latent, scales, channelOf }) => {
        const given = { v: array(view.dims, latent), s: array([view.channels], scales) };
        const built = gradientModel(roundingModel(view, grid), [given]);
        const values = evaluate(built.model, given);
        const inScale = new Float64Array(view.channels);
        const inLatent = Float64Array.from(latent, (v, i) => {
          const [c, scale] = [channelOf(i), scales[channelOf(i)]!];
          const steps = v / scale;
          const [least, greatest] = [grid.low + grid.offset, grid.high + grid.offset];
          const whole = Math.min(Math.max(Math.round(steps - grid.offset), grid.low), grid.high);
          // Of two levels as near the lower one.
          const looked = grid.levels?.reduce((a, b) => (Math.abs(b - whole) < Math.abs(a - whole) ? b : a));
          const level = looked ?? whole + grid.offset;
          // Of the sum of squares, as the loss is.
          const g = 2 * scale * level;
          const inside = steps > least && steps < greatest;
          inScale[c]! += g * (inside ? level - steps : level);
          return inside ? g : 0;
        });
        const compare = (name: string, expected: Float64Array): void => {
          const found = values.get(built.names.get(name)!)!.data;
          const size = Math.max(1e-6, ...expected.map(Math.abs));
          expected.forEach((x, i) => {
            expect(Math.abs(found[i]! - x), `${name} ${String(i)}`).toBeLessThan(1e-6 * size);
          });
        };
        compare('v', inLatent);
        compare('s', inScale);
      }),
      { numRuns: 40 },
    );
  });

  it('begins with the given code and with the weight itself where the code allows it', () => {
    const numbers = fc.record({
      bits: fc.integer({ min: 1, max: 8 }),
      kind: anyKind,
      seed: fc.nat(),
      share: fc.double({ min: 0, max: 1, noNaN: true }),
      steps: fc.double({ min: -200, max: 200, noNaN: true }),
      scale: fc.float({ min: Math.fround(1e-6), max: 10, noNaN: true }),
    });
    fc.assert(
      fc.property(numbers, ({ bits, kind, seed, share, steps, scale }) => {
        const random = randomStream(seed);
        const grid = gridFor(bits, kind, () => random.float());
        const { offset, levels } = grid;
        const code = levels
          ? levels[Math.round(share * (levels.length - 1))]!
          : Math.round(grid.low + share * (grid.high - grid.low));
        const latent = latentOf(steps * scale, code, scale, grid);
        expect(codeOf(latent, scale, grid)).toBe(code);
        // Gradients reach it.
        expect(latent / scale).toBeGreaterThan(grid.low + offset);
        expect(latent / scale).toBeLessThan(grid.high + offset);
        if (!levels && Math.abs(steps - code - offset) < 0.4 && code > grid.low && code < grid.high)
          expect(latent).toBeCloseTo(steps * scale, 4);
      }),
    );
  });
});
