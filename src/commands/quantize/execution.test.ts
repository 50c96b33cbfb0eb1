import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { saveModel } from '../../node/model-file.js';
import { staticInt8 } from '../../quantization/baselines/static-int8.js';
import type { QuantizationOutcome, QuantizationSettings } from '../../quantization/method.js';
import type { MachineCache } from '../../runtime/machine-cache.js';
import { convNet, npzOf } from '../../testing/tiny-net.js';
import { normals } from '../../testing/tiny-models.js';
import { executionFor, type Execution } from './execution.js';
import { dataOptionsSchema } from '../options.js';
import { parseOptions } from '../parse-options.js';
import { prepareStudy, quantizationContext, type PreparedStudy } from './study.js';
import { openWorkspace, type Workspace } from '../workspace.js';

let folder: string;
let workspace: Workspace;
let study: PreparedStudy;

const SETTINGS: QuantizationSettings = {
  ...{ minBits: 2, maxBits: 8, edgeBits: 8, attentionBits: 4, sensitivity: 'measured', rounding: 'compensated' },
  formats: ['uniform'],
  ...{ gradientBits: 4, sensitivityMode: 'corrected', gradientTerm: 'g', probeSamples: 8, seed: 0 },
};

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'execution-'));
  const data = join(folder, 'data.npz');
  await saveModel(convNet(), join(folder, 'net.onnx'));
  await writeFile(data, npzOf('image', [3, 8, 8], normals(60 * 192, 4)));
  workspace = await openWorkspace(join(folder, 'net.onnx'), parseOptions(dataOptionsSchema, { data, threads: 1 }));
  study = await prepareStudy(workspace, {});
});

afterAll(async () => {
  await workspace.close();
  await rm(folder, { recursive: true });
});

function memory(): MachineCache & { readonly entries: Map<string, string>; readonly choices: () => string[] } {
  const entries = new Map<string, string>();
  return {
    entries,
    choices: () => [...entries.keys()].filter((key) => key.startsWith('execution ')),
    read: (key) => Promise.resolve(entries.get(key)),
    write: (key, text) => {
      entries.set(key, text);
      return Promise.resolve();
    },
  };
}

async function outcomeFor(execution: Execution): Promise<QuantizationOutcome> {
  const context = quantizationContext(workspace, study, execution.quantizable, SETTINGS, {}, () => undefined);
  return (await staticInt8.prepare(context)).quantize({ codeBytes: 1e6 });
}

describe('executionFor', () => {
  const settings = { execution: 'auto', target: 'cpu', threads: 1, remeasure: false } as const;

  it('remembers what it chose, and does not choose again', async () => {
    const cache = memory();
    const execution = executionFor(workspace, study, staticInt8, settings, { machine: cache });
    const outcome = await outcomeFor(execution);
    const first = await execution.choose(outcome, {});
    const [key] = cache.choices();
    expect(cache.choices()).toHaveLength(1);
    expect(JSON.parse(cache.entries.get(key!)!)).toMatchObject({ name: first.name, int8: [...first.int8].sort() });
    // A choice that no measurement would make shows who made it.
    cache.entries.set(key!, JSON.stringify({ name: 'remembered', int8: [], refused: 0 }));
    const again = executionFor(workspace, study, staticInt8, settings, { machine: cache });
    expect((await again.choose(outcome, {})).name).toBe('remembered');
  });

  it('with remeasure reads nothing of what it remembers, and remembers the new choice', async () => {
    const cache = memory();
    const outcome = await outcomeFor(executionFor(workspace, study, staticInt8, settings, { machine: cache }));
    await executionFor(workspace, study, staticInt8, settings, { machine: cache }).choose(outcome, {});
    const [key] = cache.choices();
    cache.entries.set(key!, JSON.stringify({ name: 'remembered', int8: [], refused: 0 }));
    const anew = executionFor(workspace, study, staticInt8, { ...settings, remeasure: true }, { machine: cache });
    const choice = await anew.choose(outcome, {});
    expect(choice.name).not.toBe('remembered');
    expect(cache.choices()).toEqual([key]);
    expect(JSON.parse(cache.entries.get(key!)!)).toMatchObject({ name: choice.name });
  });
});
