/** `distill`: a small student learns what a teacher knows; what is best on VAL is written and measured beside the teacher. */
import type { ModelProto } from 'onnx-buf';
import { measureFidelity } from '../distillation/fidelity.js';
import { meanChanges } from '../distillation/changes.js';
import type { Side } from '../distillation/lesson.js';
import { fitMaps } from '../distillation/maps.js';
import { findDistillationMethod } from '../distillation/methods.js';
import { sideOf } from '../distillation/side.js';
import { FlowCompressError } from '../errors.js';
import { assertWritableOutput } from '../node/atomic-file.js';
import { openModel } from '../node/model-file.js';
import type { ModelInput } from '../node/model-input.js';
import type { RunControl } from '../progress.js';
import type { DistillReport, FlowPoint, MappedLayer } from '../report/report.js';
import { traceShapes } from '../runtime/trace.js';
import { mappingFileOf, openClassroom, type Classroom } from './classroom.js';
import { objectiveOf, type Objective } from './objective.js';
import { distillOptionsSchema, parseOptions, type DistillOptions } from './options.js';
import { prepareModel } from './prepare.js';
import { runTraining } from './run-training.js';
import { startRun } from './run-info.js';
import { finishedReport, logged, openRun } from './run-state.js';
import { openTeacherModel } from './teacher-model.js';
import { openStudent } from './trainee.js';
import { refuseFixedBatch } from './training-setup.js';
import { openCheckedModel, openWorkspace } from './workspace.js';
import type { Workspace } from './workspace.js';
import { writeMeasured, type WrittenModel } from './written-model.js';

/** Options of `distillModel`: `teacher`, `data` and `output` are needed, everything else has a default. */
export type DistillInput = Pick<DistillOptions, 'teacher' | 'data' | 'output'> & Partial<DistillOptions>;

/**
 * Trains a student, a model or an architecture of the zoo, on the answers and layers of a teacher and writes `options.output`, whole or
 * not at all.
 * @param input of the student: path of an ONNX file, the name of an architecture, bytes, or a model
 * @returns the written student and the report about it, measured on TEST beside the teacher
 * @throws FlowCompressError `bad-input` for models that do not fit each other or the data, a teacher that is no better than chance, a
 *   mapping that does not fit; `unsupported` naming a node without a gradient rule; `io`, `aborted`
 */
export async function distillModel(
  input: ModelInput,
  options: DistillInput,
): Promise<{ model: ModelProto; report: DistillReport }> {
  const clock = startRun();
  const settings = parseOptions(distillOptionsSchema, options);
  const { signal } = options;
  const { force } = settings;
  const mapping = mappingFileOf(settings);
  const given = [input, settings.teacher, settings.data, settings.test, settings.preprocessFile, mapping].filter(
    (file) => typeof file === 'string',
  );
  if (!settings.resume) await assertWritableOutput(settings.output, { force, inputs: given });
  const opened = await clock.stage('open', () => openCheckedModel(settings.teacher, { signal }));
  const student = await openStudent(input, opened, settings);
  const workspace = await clock.stage('open', () =>
    openWorkspace(student.input, settings, { signal, onProgress: options.onProgress }, { name: student.name }),
  );
  const rules = { force, inputs: [...given, ...workspace.opened.files, ...opened.files] };
  let written: WrittenModel | undefined;
  let closing: (() => Promise<void>)[] = [];
  try {
    const run = await openRun(
      'distill',
      workspace,
      settings,
      { signal },
      {
        teacher: opened.content,
        ...(mapping !== undefined && { 'mapping of layers': mapping }),
      },
    );
    const finished = await finishedReport(run, 'distill', settings.output);
    if (finished) return { model: (await openModel(settings.output, { signal })).model, report: finished };
    await assertWritableOutput(settings.output, rules);
    const control = logged({ signal, onProgress: options.onProgress }, run);
    refuseFixedBatch(workspace);
    const teacher = await clock.stage('prepare', () => openTeacherModel(workspace, opened, control));
    const objective = objectiveFor(workspace, settings);
    const method = findDistillationMethod(settings.method)!;
    let class_: Classroom | undefined;
    const trained = await runTraining(
      {
        ...{ workspace, objective, clock, curves: undefined, cache: run?.cache },
        settings: { ...settings, loss: undefined },
        teach: async (base, { augment }) => {
          const made = await clock.stage('prepare', () =>
            openClassroom(
              { workspace, teacher, base: base.model, logits: base.output, method, settings, control },
              augment.mixup > 0,
            ),
          );
          class_ = made;
          closing = [...closing, made.close];
          return made.teaching;
        },
      },
      control,
    );
    const classroom = class_!;
    const made = (written = await writeMeasured(workspace, trained.model, settings, rules, clock, control, {
      input: settings.teacher,
      shownAs: settings.teacher,
    }));
    const flow = await clock.stage('flow', () => flowsOf(workspace, classroom, trained.model, control));
    const fidelity = await clock.stage('fidelity', () =>
      measureFidelity(
        {
          ...{ engine: workspace.engine, teacher: opened.model, student: trained.model, split: 'test' as const },
          scores: { teacher: teacher.scores, student: workspace.scores },
          batches: () => workspace.batch(made.measureOptions.dataset),
          samples: made.measureOptions.dataset.size,
        },
        control,
      ),
    );
    await made.publish();
    const notes = [...new Set([...workspace.notes, ...teacher.warnings, ...made.warnings])];
    const report: DistillReport = {
      command: 'distill',
      method: method.name,
      seed: settings.seed,
      target: settings.target,
      teacher: opened.name,
      student: student.name,
      output: settings.output,
      ...clock.info(workspace.engine),
      ...(notes.length > 0 && { warnings: notes }),
      data: workspace.data,
      settings: {
        ...trained.shown,
        temperature: settings.temperature,
        ...(settings.rounds !== undefined && { rounds: settings.rounds }),
        ...(method.name === 'fad' && {
          ...{ select: settings.select, flow: settings.flow, perSample: settings.perSample },
          weighting: settings.weighting,
        }),
        ...(method.mapped && { mapping: settings.mapping }),
      },
      ...{ before: made.before, after: made.after },
      training: trained.summary,
      history: trained.history.map((point) => ({ ...point, terms: point.terms ?? {} })),
      ...(method.mapped && { mapping: mappedLayers(classroom) }),
      flow,
      fidelity,
    };
    await run?.finish(report, settings.output);
    return { model: trained.model, report };
  } finally {
    for (const close of closing) await close();
    await workspace.close();
    await written?.output.discard();
  }
}

/** Labels where there are some; without them the answers of the teacher are all there is. */
function objectiveFor(workspace: Workspace, settings: DistillOptions): Objective {
  const { working, head, outputDims } = workspace;
  if (working.train.labels) return objectiveOf(workspace, { ...settings, loss: undefined });
  const { metric = 'loss', labelSmoothing, balance, data } = settings;
  const asked = [
    ...(metric === 'loss' ? [] : [`--metric ${metric}`]),
    ...(labelSmoothing > 0 ? ['--label-smoothing'] : []),
    ...(balance ? ['--balance'] : []),
  ];
  if (asked.length > 0)
    throw new FlowCompressError('bad-input', `${asked[0]!} needs labels.`, {
      node: data,
      hint: 'Leave the option out, or give labelled data.',
    });
  return {
    ...{ loss: 'kl', output: head!.output, dims: outputDims.get(head!.output)!, weighted: false, metric: 'loss' },
    targets: () => {
      throw new FlowCompressError('internal', 'There are no labels to learn from.');
    },
  };
}

/** Flows of both models as they are now. */
async function flowsOf(
  { engine, batch, feedsFor, scores }: Workspace,
  { teacher, teacherFlow, calib }: Classroom,
  model: ModelProto,
  control: RunControl,
): Promise<DistillReport['flow']> {
  const prepared = await prepareModel(engine, model, feedsFor, { signal: control.signal });
  const shapes = await traceShapes(engine, prepared.model, feedsFor(1));
  const { units } = sideOf(prepared.model, shapes, scores!);
  const request = { engine, model: prepared.model, shapes, units, batches: () => batch(calib), samples: calib.size };
  const changes = await meanChanges({ ...request, maps: await fitMaps(request, control) }, control);
  const points = (of: Side['units'], flows: readonly (number | undefined)[]): FlowPoint[] =>
    of.flatMap(({ name, depth }, i) => (flows[i] === undefined ? [] : [{ name, depth, change: flows[i] }]));
  return { teacher: points(teacher.side.units, teacherFlow), student: points(units, changes) };
}

function mappedLayers({ lesson, student, teacher, cka }: Classroom): MappedLayer[] {
  const { pairs } = lesson;
  const weights = lesson.control.weights?.();
  return pairs.map(({ student: s, teacher: t }, i) => ({
    ...{ student: student.units[s]!.name, teacher: teacher.side.units[t]!.name },
    ...(cka && { cka: Math.min(1, Math.max(0, cka[t]![s]!)) }),
    weight: weights?.[i] ?? 1 / pairs.length,
  }));
}
