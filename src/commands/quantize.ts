/** `quantize`: fewer bits per weight; the file is written, verified against a simulation and measured on TEST. */
import type { ModelProto } from 'onnx-buf';
import { FlowCompressError, throwIfAborted } from '../errors.js';
import { assertWritableOutput } from '../node/atomic-file.js';
import { openModel, saveModel } from '../node/model-file.js';
import type { ModelInput } from '../node/model-input.js';
import type { StagedOutput } from '../node/staged-output.js';
import type { QuantizedWeights } from '../quantization/placement.js';
import { packedBytes } from '../quantization/pack.js';
import type { CodeBudget, PreparedMethod, QuantizationMethod, QuantizationOutcome } from '../quantization/method.js';
import { saturates } from '../runtime/saturation.js';
import { findMethod } from '../quantization/registry.js';
import { weightUnits } from '../quantization/units.js';
import type { QuantizeReport, SweepPoint, Verification } from '../report/report.js';
import { DEFAULTS, parseOptions, quantizeOptionsSchema, type QuantizeOptions } from './options.js';
import { executionFor, type Execution, type ExecutionChoice } from './execution.js';
import { measureFiles } from './measure.js';
import { prepareStudy, quantizationContext, type PreparedStudy } from './quantization-study.js';
import { layerRows } from './quantized-layers.js';
import { recoverOutcome, recoverySettings } from './recovery.js';
import { startRun } from './run-info.js';
import { finishedReport, logged, openRun } from './run-state.js';
import { verifyFile } from './verify-file.js';
import { openWorkspace, type Workspace } from './workspace.js';
import { writeMeasured, type WrittenModel } from './written-model.js';

/** Options of `quantizeModel`: `data` and `output` are needed, everything else has a default. */
export type QuantizeInput = Pick<QuantizeOptions, 'data' | 'output'> & Partial<QuantizeOptions>;

/**
 * Quantizes a model and writes `options.output`, whole or not at all.
 * @param input path of an ONNX file or of a folder in the Hugging Face layout, bytes, or a model
 * @returns the written model and the report about it, measured on TEST
 * @throws FlowCompressError `infeasible` when the budget cannot be met (unless `bestEffort`), `bad-input`, `unsupported`,
 *   `io`, `aborted`, or `internal` when the written file does not compute what was planned
 */
export async function quantizeModel(
  input: ModelInput,
  options: QuantizeInput,
): Promise<{ model: ModelProto; report: QuantizeReport }> {
  const clock = startRun();
  const settings = parseOptions(quantizeOptionsSchema, options);
  const { signal } = options;
  const method = findMethod(settings.method)!;
  const { force } = settings;
  const given = inputFiles(input, settings);
  // The output of a finished run is no obstacle to resuming it.
  if (!settings.resume) await assertWritableOutput(settings.output, { force, inputs: given });
  const workspace = await clock.stage('open', () =>
    openWorkspace(input, settings, { signal, onProgress: options.onProgress }),
  );
  const warnings = [...workspace.notes];
  const rules = { force, inputs: [...given, ...workspace.opened.files] };
  let written: WrittenModel | undefined;
  try {
    const run = await openRun('quantize', workspace, settings, { signal });
    const finished = await finishedReport(run, 'quantize', settings.output);
    if (finished) return { model: (await openModel(settings.output, { signal })).model, report: finished };
    const control = logged({ signal, onProgress: options.onProgress }, run);
    // The model itself, where a folder was named, and its external data are known only now.
    await assertWritableOutput(settings.output, rules);
    const study = await clock.stage('prepare', () => prepareStudy(workspace, control));
    warnings.push(...study.warnings);
    const execution = executionFor(workspace, study, method, settings, { run: run?.cache });
    const warn = (message: string): unknown => warnings.push(message);
    const maxBits = await widestCodes(workspace, execution, settings.maxBits, warn);
    const methodSettings = {
      ...settings,
      maxBits,
      edgeBits: Math.min(settings.edgeBits, maxBits),
      minBits: settings.minBits ?? Math.min(DEFAULTS.minBits, maxBits),
    };
    const context = {
      ...quantizationContext(workspace, study, execution.quantizable, methodSettings, control, warn),
      divergences: run?.divergences,
    };
    const prepared = await clock.stage('measure layers', () => method.prepare(context));
    const wanted = budgetOf(settings, study, method);
    const found = await clock.stage('quantize', () => meetBudget(prepared, execution, wanted, settings.bestEffort));
    const chosen = await clock.stage('choose execution', () => execution.choose(found.outcome, control));
    throwIfAborted(control.signal);
    const recovered =
      settings.recover === 0
        ? undefined
        : await clock.stage('recover', () =>
            recoverOutcome(workspace, study, found.outcome, chosen, settings, control, run?.cache),
          );
    const outcome = recovered?.state ?? found.outcome;
    const { choice, model, verification } = await clock.stage('verify', () =>
      verifyOrFallBack(workspace, study, outcome, chosen, settings.execution === 'auto' ? execution.float : undefined),
    );
    warnings.push(...choice.warnings);
    const made = (written = await writeMeasured(workspace, model, settings, rules, clock, control));
    const { original, before, after, saved } = made;
    warnings.push(...made.warnings);
    const sweep = settings.sweep ? await clock.stage('sweep', () => runSweep(made.output, settings.sweep!)) : undefined;
    await made.publish();
    const notes = [...new Set(warnings)];
    const report: QuantizeReport = {
      command: 'quantize',
      method: method.name,
      seed: settings.seed,
      target: settings.target,
      model: original.shownAs,
      output: settings.output,
      ...clock.info(workspace.engine),
      ...(notes.length > 0 && { warnings: notes }),
      data: workspace.data,
      settings: {
        ...(wanted.unit === 'bits' ? { bits: wanted.requested } : { maxSize: wanted.requested }),
        execution: choice.name,
        ...(method.name === 'faaq' && sensitivitySettings(settings)),
        calibration: workspace.working.calib.size,
        ...(settings.recover > 0 && recoverySettings(settings)),
      },
      budget: { unit: wanted.unit, requested: wanted.requested, ...achieved(wanted, found, saved.bytes) },
      before,
      after,
      layers: layerRows(study, outcome, choice),
      ...(found.outcome.agreement && { sensitivityCheck: found.outcome.agreement }),
      ...(recovered && { recovery: recovered.summary }),
      ...(sweep && { sweep }),
      verification,
    };
    await run?.finish(report, settings.output);
    return { model, report };

    async function runSweep(staging: StagedOutput, widths: readonly number[]): Promise<SweepPoint[]> {
      const files: { bits: number; path: string }[] = [];
      for (const bits of [...new Set(widths)].sort((a, b) => a - b)) {
        throwIfAborted(control.signal);
        const outcome = await prepared.quantize(codeBudget(study, bits, settings.minBits));
        const file = `${staging.path}.sweep-${String(bits)}.onnx`;
        await saveModel(choice.build(outcome), file, { force: true, signal: control.signal });
        files.push({ bits, path: file });
      }
      const results = await measureFiles(
        workspace,
        [original, ...files.map((f) => ({ input: f.path, shownAs: `the model of ${String(f.bits)} bits` }))],
        { ...made.measureOptions, skipLatency: true },
        control,
      );
      return files.flatMap(({ bits }, i) => {
        const { measurement } = results.files[i + 1]!;
        return measurement.metric ? [{ bits, bytes: measurement.bytes, metric: measurement.metric }] : [];
      });
    }
  } finally {
    await workspace.close();
    await written?.output.discard();
  }
}

function sensitivitySettings({ sensitivity, sensitivityMode, gradientTerm }: QuantizeOptions): Record<string, string> {
  return sensitivity === 'measured' ? { sensitivity } : { sensitivity, sensitivityMode, gradientTerm };
}

/** Integer kernels of some processors add products in 16 bits, which holds for 7-bit weights only. */
async function widestCodes(
  { engine }: Workspace,
  { quantizable }: Execution,
  maxBits: number,
  warn: (message: string) => unknown,
): Promise<number> {
  if (quantizable.size === 0 || maxBits < 8 || !(await saturates(engine))) return maxBits;
  warn('The int8 kernels of this processor saturate on 8-bit weights: the widest weights have 7 bits.');
  return 7;
}

/** What the output must not replace. */
function inputFiles(model: ModelInput, { data, test, preprocessFile }: QuantizeOptions): string[] {
  return [model, data, test, preprocessFile].filter((file) => typeof file === 'string');
}

/** Verifies the chosen execution; where the choice was free, float is what remains if int8 kernels compute something else. */
async function verifyOrFallBack(
  workspace: Workspace,
  study: PreparedStudy,
  outcome: QuantizationOutcome,
  choice: ExecutionChoice,
  float: ExecutionChoice | undefined,
): Promise<{ choice: ExecutionChoice; model: ModelProto; verification: Verification }> {
  const model = choice.build(outcome);
  try {
    return { choice, model, verification: await verifyFile(workspace, study, outcome, choice, model) };
  } catch (error) {
    if (!float || choice.int8.size === 0 || !(error instanceof FlowCompressError) || error.code !== 'internal')
      throw error;
    const warnings = [`${error.message} The model executes in float instead.`];
    const plain = float.build(outcome);
    const verification = await verifyFile(workspace, study, outcome, float, plain);
    return { choice: { ...float, warnings }, model: plain, verification };
  }
}

interface WantedBudget {
  readonly unit: 'bits' | 'bytes';
  readonly requested: number;
  readonly codes: CodeBudget;
  readonly params: number;
}

/**
 * Bytes of codes at an average width. Where the user set no lowest width and the average hardly leaves room above the
 * usual one, single layers go lower.
 */
function codeBudget(study: PreparedStudy, bits: number, lowest: number | undefined): CodeBudget {
  const minBits = lowest ?? (bits < DEFAULTS.minBits + 0.25 ? 1 : DEFAULTS.minBits);
  return { codeBytes: Math.floor((quantizableParams(study) * bits) / 8), minBits };
}

function quantizableParams({ layers }: PreparedStudy): number {
  return weightUnits(layers).reduce((sum, unit) => sum + unit.layer.params, 0);
}

function budgetOf(
  settings: Pick<QuantizeOptions, 'bits' | 'maxSize' | 'minBits'>,
  study: PreparedStudy,
  method: QuantizationMethod,
): WantedBudget {
  const params = quantizableParams(study);
  if (settings.maxSize !== undefined) {
    const codes = { codeBytes: settings.maxSize, minBits: settings.minBits ?? DEFAULTS.minBits };
    return { unit: 'bytes', requested: settings.maxSize, codes, params };
  }
  const bits = method.fixedBits ?? settings.bits ?? DEFAULTS.bits;
  return { unit: 'bits', requested: bits, codes: codeBudget(study, bits, settings.minBits), params };
}

interface FoundOutcome {
  readonly outcome: QuantizationOutcome;
  readonly met: boolean;
}

/** Tries of the size search; each one corrects the bytes that are not codes. */
const SIZE_TRIES = 4;

async function meetBudget(
  prepared: PreparedMethod,
  execution: Execution,
  wanted: WantedBudget,
  bestEffort: boolean,
): Promise<FoundOutcome> {
  if (wanted.unit === 'bits') {
    const outcome = await prepared.quantize({ ...wanted.codes, orSmallest: bestEffort });
    return { outcome, met: averageBits(outcome) <= wanted.requested + 1e-9 };
  }
  // Everything that is not codes hardly depends on the widths: it is learnt from a first build and corrected.
  let codeBytes = wanted.params / 2;
  let smallest: { outcome: QuantizationOutcome; bytes: number } | undefined;
  for (let i = 0; i < SIZE_TRIES; i++) {
    const outcome = await prepared.quantize({
      codeBytes: Math.max(0, codeBytes),
      minBits: wanted.codes.minBits,
      orSmallest: true,
    });
    const bytes = execution.largestFile(outcome);
    if (i > 0 && bytes <= wanted.requested) return { outcome, met: true };
    if (!smallest || bytes < smallest.bytes) smallest = { outcome, bytes };
    codeBytes = wanted.requested - (bytes - codeBytesOf(outcome)) - 16 * i;
  }
  if (bestEffort && smallest) return { outcome: smallest.outcome, met: false };
  throw new FlowCompressError(
    'infeasible',
    `The file cannot be made as small as ${String(wanted.requested)} bytes: the closest has ${String(smallest?.bytes ?? 0)} bytes.`,
    { hint: 'Raise --max-size, lower --min-bits, or write the closest with --best-effort.' },
  );
}

function distinctWeights(outcome: QuantizationOutcome): QuantizedWeights[] {
  return [...new Map([...outcome.weights.values()].map((w) => [w.codes, w])).values()];
}

function codeBytesOf(outcome: QuantizationOutcome): number {
  return distinctWeights(outcome).reduce((sum, { codes, grid }) => sum + packedBytes(codes.length, grid.bits), 0);
}

function averageBits(outcome: QuantizationOutcome): number {
  const all = distinctWeights(outcome);
  const params = all.reduce((sum, { codes }) => sum + codes.length, 0);
  return all.reduce((sum, { codes, grid }) => sum + codes.length * grid.bits, 0) / Math.max(params, 1);
}

function achieved(wanted: WantedBudget, found: FoundOutcome, bytes: number): { achieved: number; met: boolean } {
  if (wanted.unit === 'bytes') return { achieved: bytes, met: found.met && bytes <= wanted.requested };
  return { achieved: averageBits(found.outcome), met: found.met };
}
