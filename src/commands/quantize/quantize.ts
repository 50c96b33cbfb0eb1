/** `quantize`: fewer bits per weight; the file is written, verified against a simulation and measured on TEST. */
import type { ModelProto } from 'onnx-buf';
import { FlowCompressError, throwIfAborted } from '../../errors.js';
import { saveModel } from '../../node/model-file.js';
import type { ModelInput } from '../../node/model-input.js';
import type { QuantizationMethod } from '../../quantization/method.js';
import { findMethod } from '../../quantization/registry.js';
import type { QuantizeReport, SweepPoint } from '../../report/report.js';
import { achieved, budgetOf, codeBudget, meetBudget } from './bit-budget.js';
import { measureFiles } from '../measure.js';
import { parseOptions } from '../parse-options.js';
import { type QuantizeOptions, quantizeOptionsSchema } from './options.js';
import { prepareStudy } from './study.js';
import { layerRows } from './rows.js';
import { openQuantizer, verifyOrFallBack } from './quantizing.js';
import { recoverOutcome, recoveryOptions, recoverySettings, type LearningOptions } from '../recover/recovery.js';
import { refuseTeaching } from '../recover/taught-recovery.js';
import type { Workspace } from '../workspace.js';
import { writeMeasured, type WrittenModel } from '../written-model.js';
import { writingRun, type WritingRun } from '../writing-run.js';

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
  const settings = parseOptions(quantizeOptionsSchema, options);
  return writingRun('quantize', input, settings, options, (run) => quantized(run, settings));
}

async function quantized(
  { clock, workspace, run, control, rules, warnings }: WritingRun,
  settings: QuantizeOptions,
): Promise<{ model: ModelProto; report: QuantizeReport }> {
  const method = findMethod(settings.method)!;
  const learning = learningOf(method, settings, workspace);
  const study = await clock.stage('prepare', () => prepareStudy(workspace, control));
  warnings.push(...study.warnings);
  const { execution, prepared } = await openQuantizer(
    {
      ...{ workspace, study, method, settings, clock, cache: run?.cache, divergences: run?.divergences },
      warn: (message) => warnings.push(message),
    },
    control,
  );
  const wanted = budgetOf(settings, study, method);
  const found = await clock.stage('quantize', () => meetBudget(prepared, execution, wanted, settings.bestEffort));
  const chosen = await clock.stage('choose execution', () => execution.choose(found.outcome, control));
  throwIfAborted(control.signal);
  const recovered =
    learning === undefined
      ? undefined
      : await clock.stage('recover', () =>
          recoverOutcome(
            { workspace, study, outcome: found.outcome, choice: chosen, options: learning },
            settings,
            control,
            run?.cache,
          ),
        );
  const outcome = recovered?.state ?? found.outcome;
  const { choice, model, verification } = await clock.stage('verify', () =>
    verifyOrFallBack(workspace, study, outcome, chosen, settings.execution === 'auto' ? execution.float : undefined),
  );
  warnings.push(...choice.warnings);
  const written = await writeMeasured(workspace, model, settings, rules, clock, control);
  try {
    const { original, before, after, saved } = written;
    warnings.push(...written.warnings);
    const sweep = settings.sweep ? await clock.stage('sweep', () => runSweep(written, settings.sweep!)) : undefined;
    await written.publish();
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
        ...(learning && recoverySettings(settings, learning)),
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
    return { model, report };
  } finally {
    await written.output.discard();
  }

  async function runSweep(
    { output: staging, original, measureOptions }: WrittenModel,
    widths: readonly number[],
  ): Promise<SweepPoint[]> {
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
      { ...measureOptions, val: undefined, skipLatency: true },
      control,
    );
    return files.flatMap(({ bits }, i) => {
      const { measurement } = results.files[i + 1]!;
      return measurement.metric ? [{ bits, bytes: measurement.bytes, metric: measurement.metric }] : [];
    });
  }
}

/**
 * How what was rounded learns; undefined where it does not.
 * @throws FlowCompressError `bad-input` for a method that learns and is not to, or for more samples per update than there are; as
 *   `refuseTeaching`
 */
function learningOf(
  { name, learns }: QuantizationMethod,
  settings: QuantizeOptions,
  workspace: Workspace,
): LearningOptions | undefined {
  const steps = settings.recover ?? learns?.steps ?? 0;
  if (learns && (steps === 0 || settings.sweep))
    throw new FlowCompressError('bad-input', `--method ${name} trains what it rounded, at one width.`, {
      hint: steps === 0 ? 'Leave --recover out, or take static-int8.' : 'Leave --sweep out.',
    });
  if (steps === 0) return undefined;
  const options = recoveryOptions(settings, steps, learns && workspace.working.train.labels ? 'labels' : 'answers');
  refuseTeaching(options.teaching, workspace);
  const { size } = workspace.working.train;
  if (options.batchSize > size)
    throw new FlowCompressError(
      'bad-input',
      `A step takes ${String(options.batchSize)} samples, TRAIN has ${String(size)}.`,
      {
        hint: 'Lower --recover-batch-size.',
      },
    );
  return options;
}

function sensitivitySettings({ sensitivity, sensitivityMode, gradientTerm }: QuantizeOptions): Record<string, string> {
  return sensitivity === 'measured' ? { sensitivity } : { sensitivity, sensitivityMode, gradientTerm };
}
