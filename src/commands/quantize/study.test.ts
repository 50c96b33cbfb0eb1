import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { saveModel } from '../../node/model-file.js';
import type { QuantizationSettings } from '../../quantization/method.js';
import { convNet, npzOf } from '../../testing/tiny-net.js';
import { normals } from '../../testing/tiny-models.js';
import { dataOptionsSchema } from '../options.js';
import { parseOptions } from '../parse-options.js';
import { prepareStudy, quantizationContext, WIDE_BATCH, WIDE_BYTES, type PreparedStudy } from './study.js';
import { openWorkspace, type Workspace } from '../workspace.js';

const SETTINGS: QuantizationSettings = {
  ...{ minBits: 2, maxBits: 8, edgeBits: 8, attentionBits: 4, sensitivity: 'measured', rounding: 'compensated' },
  formats: ['uniform'],
  ...{ gradientBits: 4, sensitivityMode: 'corrected', gradientTerm: 'g', probeSamples: 8, seed: 0 },
};

let folder: string;
const opened: Workspace[] = [];

async function open(batchSize: number): Promise<{ workspace: Workspace; study: PreparedStudy }> {
  const data = join(folder, 'data.npz');
  const options = parseOptions(dataOptionsSchema, { data, threads: 1, batchSize });
  const workspace = await openWorkspace(join(folder, 'net.onnx'), options);
  opened.push(workspace);
  return { workspace, study: await prepareStudy(workspace, {}) };
}

async function batchSizes(workspace: Workspace, study: PreparedStudy, wide: boolean): Promise<number[]> {
  const context = quantizationContext(workspace, study, new Set(), SETTINGS, {}, () => undefined);
  const sizes: number[] = [];
  for await (const { size } of context.calibration({ wide })) sizes.push(size);
  return sizes;
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'study-'));
  await saveModel(convNet(), join(folder, 'net.onnx'));
  await writeFile(join(folder, 'data.npz'), npzOf('image', [3, 8, 8], normals(250 * 192, 4)));
});

afterAll(async () => {
  for (const workspace of opened) await workspace.close();
  await rm(folder, { recursive: true });
});

describe('the calibration pass', () => {
  it('has the usual batches, and larger ones where that is asked for', async () => {
    const { workspace, study } = await open(32);
    expect(workspace.working.calib.size).toBe(200);
    expect(await batchSizes(workspace, study, false)).toEqual([32, 32, 32, 32, 32, 32, 8]);
    expect(await batchSizes(workspace, study, true)).toEqual([WIDE_BATCH, 200 - WIDE_BATCH]);
  });

  it('keeps the usual batches where activations are large', async () => {
    const { workspace, study } = await open(32);
    // Bytes per sample for which 40 rows, and 20 rows, take as much as they may.
    for (const [rows, sizes] of [
      [40, [40, 40, 40, 40, 40]],
      [20, [32, 32, 32, 32, 32, 32, 8]],
    ] as const) {
      const dims = [study.rows, Math.floor(WIDE_BYTES / 4 / (rows + 0.5))];
      const large = { ...study, shapes: new Map([['x', { type: 'float32' as const, dims }]]) };
      expect(await batchSizes(workspace, large, true)).toEqual(sizes);
    }
  });

  it('keeps smaller batches than usual, which were asked for', async () => {
    const { workspace, study } = await open(16);
    expect(Math.max(...(await batchSizes(workspace, study, true)))).toBe(16);
  });
});
