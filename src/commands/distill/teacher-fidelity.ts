/** Holds measured files against a teacher: their answers and features on one split. */
import type { Dataset } from '../../data/dataset.js';
import { measureFidelities, type AnsweringModel, type Fidelity } from '../../distillation/fidelity.js';
import { nameOf, type GivenModel, type ModelInput } from '../../node/model-input.js';
import type { RunControl } from '../../progress.js';
import { headOfRun } from '../../runtime/head-of-run.js';
import type { NamedTensor } from '../../runtime/scores.js';
import type { SampleQuality } from '../../report/report.js';
import { distillTask } from './task.js';
import type { DistillOptions } from './options.js';
import { measureSamples, type QualityOptions, type SamplingModel } from './sample-quality.js';
import { facingOutputs } from './teacher-model.js';
import type { MeasuredSubject } from '../measure.js';
import { assertSameInputs } from '../same-inputs.js';
import { openCheckedModel, openSession, type Workspace } from '../workspace.js';

export interface TeacherFile extends AnsweringModel {
  /** As it was given. */
  readonly name: string;
  /** In their order, with what they gave for one sample. */
  readonly outputs: readonly NamedTensor[];
}

/**
 * Opens a teacher for the samples of a workspace.
 * @throws FlowCompressError `bad-input`, `unsupported` or `io` for a file that is no model or takes other inputs; `aborted`
 */
export async function openTeacherFile(
  workspace: Workspace,
  input: ModelInput,
  { signal, onProgress }: RunControl = {},
): Promise<TeacherFile> {
  const name = typeof input === 'string' ? input : 'the teacher, in memory';
  onProgress?.({ stage: 'open', done: 0, total: 1, detail: name });
  const opened = await openCheckedModel(input, { name, signal });
  const teacher = await answering(workspace, opened, name);
  onProgress?.({ stage: 'open', done: 1, total: 1 });
  return teacher;
}

/**
 * @param dataset TEST, as the files were measured on
 * @returns a fidelity per subject, and what the user should know
 * @throws FlowCompressError `bad-input` when answers cannot be compared; `aborted`
 */
export async function compareWithTeacher(
  workspace: Workspace,
  teacher: TeacherFile,
  subjects: readonly MeasuredSubject[],
  dataset: Dataset,
  settings: QualityOptions & Pick<DistillOptions, 'outputs' | 'data'>,
  control: RunControl = {},
): Promise<{ fidelities: (Fidelity & SampleQuality)[]; warnings: string[] }> {
  const students: TeacherFile[] = [];
  for (const { input, shownAs } of subjects) {
    const opened =
      input === workspace.input
        ? workspace.opened
        : await openCheckedModel(input, { name: shownAs, signal: control.signal });
    students.push(await answering(workspace, opened, shownAs));
  }
  const { engine } = workspace;
  const batches = (): ReturnType<Workspace['batch']> => workspace.batch(dataset);
  const fidelities = await measureFidelities(
    { engine, teacher, students, batches, split: 'test', samples: dataset.size },
    control,
  );
  const warnings = fidelities.flatMap(({ probed }, i) =>
    probed === undefined
      ? [
          `The features of ${subjects[i].shownAs} and of the teacher were not compared: that takes eight samples and, in both, a layer with weights in front of the answers.`,
        ]
      : [],
  );
  const { outputs, features } = settings;
  if (workspace.outputDims.size === 0 || (workspace.scores !== undefined && outputs === undefined))
    return { fidelities, warnings };
  const task = distillTask(workspace, settings);
  const measured = task.kind === 'values' && (task.aim ?? task.generation ?? features) !== undefined;
  if (!measured) return { fidelities, warnings };
  const model = ({ model: of, name, outputs: own }: TeacherFile): SamplingModel => ({
    opened: { model: of, name },
    outputs: facingOutputs(workspace, task.answering.outputs, own, name),
  });
  const samples = await measureSamples(
    { workspace, task, teacher: model(teacher), students: students.map(model), dataset, settings },
    control,
  );
  return {
    fidelities: fidelities.map((fidelity, i) => ({ ...fidelity, ...samples.qualities[i] })),
    warnings: [...warnings, ...samples.warnings],
  };
}

async function answering(
  { engine, input, inputs, fixedBatch, feedsFor, working }: Workspace,
  opened: GivenModel,
  name: string,
): Promise<TeacherFile> {
  const session = await openSession(engine, opened);
  try {
    assertSameInputs(inputs, session.inputs, nameOf(input), name);
    const found = await headOfRun(session, feedsFor(fixedBatch ?? 1), working.train.labels !== undefined);
    const { scores, outputs } = found;
    return { model: opened.model, content: opened.content, name, outputs, ...(scores !== undefined && { scores }) };
  } finally {
    await session.release();
  }
}
