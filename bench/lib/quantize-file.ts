/** `quantize` up to the written file, without reading TEST, stage by stage, from data that is in memory or on disk. */
import type { QuantizeInput } from '../../src/commands/quantize/quantize.js';
import { parseOptions } from '../../src/commands/parse-options.js';
import { QUANTIZE_DEFAULTS, quantizeOptionsSchema } from '../../src/commands/quantize/options.js';
import { executionFor } from '../../src/commands/quantize/execution.js';
import { WIDE_BATCH, prepareStudy, quantizationContext } from '../../src/commands/quantize/study.js';
import { verifyFile } from '../../src/commands/quantize/verify-file.js';
import { openCheckedModel, openWorkspace, type Workspace } from '../../src/commands/workspace.js';
import type { Batch } from '../../src/data/dataset.js';
import { saveModel } from '../../src/node/model-file.js';
import { findMethod } from '../../src/quantization/registry.js';
import { weightUnits } from '../../src/quantization/units.js';

export interface QuantizedFile {
  readonly bytes: number;
  /** What the execution choice is called. */
  readonly execution: string;
  /** Seconds by stage, in order. */
  readonly stages: Readonly<Record<string, number>>;
}

export interface QuantizeFileOptions extends QuantizeInput {
  /** Reads the calibration samples before the clock starts; they are then served from memory. */
  readonly preload?: boolean;
  /** Leaves out the comparison with the simulation. */
  readonly skipVerification?: boolean;
}

/** @throws what `quantizeModel` throws */
export async function quantizeFile(path: string, options: QuantizeFileOptions): Promise<QuantizedFile> {
  const { preload = false, skipVerification = false, ...input } = options;
  const settings = parseOptions(quantizeOptionsSchema, input);
  const method = findMethod(settings.method);
  if (!method) throw new Error(`There is no method ${settings.method}.`);
  const stages: Record<string, number> = {};
  const stage = async <T>(name: string, work: () => Promise<T> | T): Promise<T> => {
    const start = performance.now();
    const result = await work();
    stages[name] = (performance.now() - start) / 1000;
    return result;
  };
  const opened = await openWorkspace(path, settings);
  try {
    const workspace = preload ? await preloaded(opened) : opened;
    // The workspace has opened it before the clock: opening is part of the work.
    await stage('open model', () => openCheckedModel(path));
    const study = await stage('prepare', () => prepareStudy(workspace, {}));
    const execution = executionFor(workspace, study, method, settings);
    const minBits = settings.minBits ?? QUANTIZE_DEFAULTS.minBits;
    const context = quantizationContext(
      workspace,
      study,
      execution.quantizable,
      { ...settings, minBits },
      {},
      () => undefined,
    );
    const prepared = await stage('calibrate and measure', () => method.prepare(context));
    const params = weightUnits(study.layers).reduce((sum, unit) => sum + unit.layer.params, 0);
    const bits = method.fixedBits ?? settings.bits ?? QUANTIZE_DEFAULTS.bits;
    const outcome = await stage('round', () =>
      prepared.quantize({ codeBytes: Math.floor((params * bits) / 8), minBits }),
    );
    const choice = await stage('choose execution', () => execution.choose(outcome, {}));
    const model = await stage('build', () => choice.build(outcome));
    if (!skipVerification) await stage('verify', () => verifyFile(workspace, study, outcome, choice, model));
    const saved = await stage('write', () => saveModel(model, settings.output, { force: true, inputs: [path] }));
    return { bytes: saved.bytes, execution: choice.name, stages };
  } finally {
    await opened.close();
  }
}

/** The workspace with its calibration batches in memory. */
async function preloaded(workspace: Workspace): Promise<Workspace> {
  const { calib } = workspace.working;
  const held = new Map<number | undefined, Batch[]>();
  for (const size of [undefined, WIDE_BATCH, QUANTIZE_DEFAULTS.probeSamples]) {
    const list: Batch[] = [];
    for await (const batch of workspace.batch(calib, size)) list.push(batch);
    held.set(size, list);
  }
  return {
    ...workspace,
    batch: (dataset, size) => {
      const list = dataset === calib ? held.get(size) : undefined;
      return list ? serve(list) : workspace.batch(dataset, size);
    },
  };
}

async function* serve(list: readonly Batch[]): AsyncGenerator<Batch, void, undefined> {
  yield* list;
}

/** Sum of the stages' seconds, without those named. */
export function secondsOf({ stages }: QuantizedFile, ...without: readonly string[]): number {
  return Object.entries(stages).reduce((sum, [name, seconds]) => (without.includes(name) ? sum : sum + seconds), 0);
}
