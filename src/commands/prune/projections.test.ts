/** `prune`, `compress` and `inspect` on a network without residual blocks: layers that a projection stands for. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openModel, saveModel } from '../../node/model-file.js';
import { Graph } from '../../onnx/graph.js';
import { findLayers } from '../../onnx/layers.js';
import { parameterCount } from '../../onnx/parameters.js';
import { makeTensor, readFloats } from '../../onnx/tensor.js';
import { toBytes } from '../../onnx/to-bytes.js';
import type { ProgressEvent } from '../../progress.js';
import { parseReport } from '../../report/report.js';
import { reportToTable } from '../../report/table.js';
import { normals, plainNet } from '../../testing/tiny-models.js';
import { npzOf } from '../../testing/tiny-net.js';
import { compressModel } from '../compress/compress.js';
import { inspectModel } from '../inspect.js';
import { pruneModel, type PruneInput } from './prune.js';

const DIMS = [3, 12, 12];
const SIZE = 3 * 12 * 12;
const MODEL = plainNet();
let folder: string;
const at = (name: string): string => join(folder, name);

const common = () => ({
  ...{ data: at('data.npz'), output: at('out.onnx'), force: true, align: 4, threads: 1 },
  ...{ calibSamples: 64, probeSamples: 32, steps: 0, batchSize: 32, latencyRuns: 1 },
});
const prune = (more: Partial<PruneInput>) =>
  pruneModel(at('model.onnx'), { ...common(), stages: 'layers', reduce: 0.5, ...more });

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'projections-'));
  await saveModel(MODEL, at('model.onnx'));
  await writeFile(at('data.npz'), npzOf('x', DIMS, normals(300 * SIZE, 5)));
});
afterAll(() => rm(folder, { recursive: true }));

describe('projections in place of layers', () => {
  it('are put in by prune, told by name, and mended by what is fitted behind them', async () => {
    const { model, report } = await prune({});
    const { removed, steps, layers, before, after, budget } = report;
    expect(budget!.met).toBe(true);
    expect(removed.length).toBeGreaterThan(0);
    for (const one of removed) expect(one.name).toBe(`${one.layers.join(' + ')}, replaced by a projection`);
    expect(steps.flatMap(({ branches }) => branches)).toEqual(removed.map(({ name }) => name));
    expect(reportToTable(report)).toContain(removed[0]!.name);
    // What they save is what the file has less.
    const saved = (key: 'params' | 'macs'): number => removed.reduce((sum, one) => sum + one[key]!, 0);
    expect(before.params! - after.params!).toBe(saved('params'));
    expect(before.macs! - after.macs!).toBeCloseTo(saved('macs'), 0);
    expect(parameterCount(model)).toBe(after.params);
    const left = findLayers(new Graph(model));
    for (const { layers: names } of removed) {
      const last = left.find(({ name }) => name === names.at(-1))!;
      expect(last.dims.slice(2).every((size) => size === 1)).toBe(true);
      for (const inner of names.slice(0, -1)) expect(left.some(({ name }) => name === inner)).toBe(false);
      for (const inner of names.slice(0, -1)) expect(layers.find(({ name }) => name === inner)!.channels.after).toBe(0);
    }
    const { cut, aligned } = steps.at(-1)!;
    expect(aligned!.divergence).toBeLessThan(cut!.divergence);
    expect(parseReport(JSON.parse(JSON.stringify(report)))).toEqual(JSON.parse(JSON.stringify(report)));
  });

  it('take over what others stood for in a later cut, and go on after an interrupt to the same bytes', async () => {
    const wanted: Partial<PruneInput> = { reduce: 0.75, cuts: 3, steps: 12, lr: 1e-3 };
    const whole = await prune({ ...wanted, runDir: at('whole') });
    const { removed, recovery, steps } = whole.report;
    expect(steps.filter(({ branches }) => branches.length > 0).length).toBeGreaterThan(1);
    expect(recovery!.steps).toBe(12);
    const names = removed.flatMap(({ layers }) => layers);
    expect(names.length).toBeGreaterThan(0);
    expect(new Set(names).size).toBe(names.length);
    const runDir = at('stopped');
    const abort = new AbortController();
    const stop = ({ stage, done }: ProgressEvent): unknown => stage === 'recover' && done === 6 && abort.abort();
    await expect(prune({ ...wanted, runDir, signal: abort.signal, onProgress: stop })).rejects.toMatchObject({
      code: 'aborted',
    });
    const again = await prune({ ...wanted, runDir, resume: true });
    expect(toBytes(again.model)).toEqual(toBytes(whole.model));
    expect(again.report.removed).toEqual(removed);
    expect((await prune({ ...wanted })).report.removed).toEqual(removed);
  });

  it('are learned like any layer', async () => {
    const first = await prune({ steps: 0 });
    const { model, report } = await prune({ steps: 60, lr: 2e-3 });
    const weightsOf = (one: typeof model): string[] => {
      const graph = new Graph(one);
      return report.removed.map(({ layers }) => {
        const layer = findLayers(graph).find(({ name }) => name === layers.at(-1))!;
        return Buffer.from(graph.constant(layer.weight)!.rawData).toString('hex');
      });
    };
    expect(report.removed.length).toBeGreaterThan(0);
    expect(report.recovery!.after.divergence).toBeLessThan(report.recovery!.before.divergence);
    weightsOf(model).forEach((weights, i) => expect(weights).not.toBe(weightsOf(first.model)[i]));
  });

  it('are among the cuts of compress, and survive its run directory', async () => {
    // Of a kernel that is 0 but in its middle nothing is lost.
    const graph = new Graph(MODEL);
    const kernels = graph.mustGet('same.w');
    const middle = readFloats(kernels.initializer!).map((value, i) => (i % 9 === 4 ? value : 0));
    graph.setInitializer(kernels, makeTensor('same.w', 1, [16, 16, 3, 3], middle));
    await saveModel(graph.toModel(), at('middle.onnx'));
    const run = (more: object) =>
      compressModel(at('middle.onnx'), {
        ...{
          ...common(),
          method: 'prune-only',
          execution: 'float',
          sizeRatio: 1.6,
          calibSamples: 32,
          probeSamples: 16,
          runDir: at('compressed'),
          ...more,
        },
      });
    const { report, model } = await run({});
    expect(report.removed.map(({ layers }) => layers)).toContainEqual(['same']);
    const again = await run({ resume: true });
    expect(again.report.removed).toEqual(report.removed);
    expect(toBytes(again.model)).toEqual(toBytes(model));
    expect(toBytes((await openModel(at('out.onnx'))).model)).toEqual(toBytes(model));
  });

  it('are listed by inspect, with what they save, and with the reason where there are none', async () => {
    const { report } = await inspectModel(at('model.onnx'), { groups: true });
    const { layers, kept } = report.model.removable!;
    const down = layers!.find(({ name }) => name === 'down, replaced by a projection')!;
    // A 3x3 kernel becomes a 1x1 one: eight ninths of 12 x 16 x 9 weights go, and as many products at each of 36 positions.
    expect(down).toEqual({ name: down.name, layers: ['down'], params: 8 * 192, macs: 36 * 8 * 192 });
    expect(kept).toContainEqual({ layer: 'stem', reason: 'it reads an input of the model' });
    expect(kept).toContainEqual({ layer: 'fc1', reason: 'a projection would cost 100 % of it' });
  });
});
