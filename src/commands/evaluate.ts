/** `evaluate`: quality, bytes and latency of files, side by side on one TEST split. */
import { openTest } from '../data/sealed-test.js';
import { FlowCompressError } from '../errors.js';
import { nameOf, type ModelInput } from '../node/model-input.js';
import type { RunControl } from '../progress.js';
import type { EvaluateReport } from '../report/report.js';
import { measureFiles } from './measure.js';
import { type EvaluateOptions, evaluateOptionsSchema } from './evaluate-options.js';
import { parseOptions } from './parse-options.js';
import { diffusionOf } from './distill/task.js';
import { startRun } from './run-info.js';
import { compareWithTeacher, openTeacherFile } from './distill/teacher-fidelity.js';
import { openWorkspace } from './workspace.js';

/** Options of `evaluateModels`: `data` is needed, everything else has a default. */
export type EvaluateInput = Pick<EvaluateOptions, 'data'> & Partial<EvaluateOptions>;

/**
 * Measures files on the TEST split: of `options.test`, or a seeded tenth of `options.data`. All files see the same batches
 * and are timed in turns; ratios are against the first one. With `options.teacher` their answers and features are compared
 * with that model's too. Preprocessing comes from the first one's folder where the options are silent.
 * @param models paths of ONNX files or Hugging Face folders, bytes, or models, with the same inputs
 * @throws FlowCompressError `bad-input` (files, data or options that cannot be used, files with different inputs, labels
 *   that are no classes of the model, answers that cannot be compared with the teacher's), `unsupported`, `io`, `aborted`
 */
export async function evaluateModels(
  models: readonly ModelInput[],
  options: EvaluateInput,
): Promise<{ report: EvaluateReport }> {
  const clock = startRun();
  const settings = parseOptions(evaluateOptionsSchema, options);
  const control: RunControl = { signal: options.signal, onProgress: options.onProgress };
  const [first] = models;
  if (first === undefined) {
    throw new FlowCompressError('bad-input', 'No model was given to evaluate.', {
      hint: 'Give at least one model, such as the path of an ONNX file.',
    });
  }
  const subjects = models.map((input, i) => ({ input, shownAs: nameOf(input, models.length > 1 ? i : undefined) }));
  const workspace = await clock.stage('open', () =>
    openWorkspace(first, settings, control, {
      name: subjects[0].shownAs,
      diffusion: diffusionOf({ ...settings, draws: 1 }),
    }),
  );
  try {
    const teacher =
      settings.teacher === undefined ? undefined : await openTeacherFile(workspace, settings.teacher, control);
    const dataset = openTest(workspace.test);
    const compared =
      teacher &&
      (await clock.stage('fidelity', () =>
        compareWithTeacher(workspace, teacher, subjects, dataset, settings, control),
      ));
    const { files, warnings } = await measureFiles(
      workspace,
      subjects,
      {
        dataset,
        split: 'test',
        batchSizes: settings.batchSizes,
        latencyRuns: settings.latencyRuns,
        threads: settings.threads,
        clock,
      },
      control,
    );
    const notes = [...workspace.notes, ...warnings, ...(compared?.warnings ?? [])];
    return {
      report: {
        command: 'evaluate',
        seed: settings.seed,
        target: settings.target,
        ...clock.info(workspace.engine),
        ...(notes.length > 0 && { warnings: notes }),
        data: workspace.data,
        ...(teacher && { teacher: teacher.name }),
        files: files.map(({ name, measurement }, i) => ({
          ...{ path: name, ...measurement },
          ...(compared && { fidelity: compared.fidelities[i] }),
        })),
      },
    };
  } finally {
    await workspace.close();
  }
}
