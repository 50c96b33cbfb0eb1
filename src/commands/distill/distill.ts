/** `distill`: a small student learns what a teacher knows; what is best on VAL is written and measured beside the teacher. */
import type { ModelProto } from 'onnx-buf';
import { measureFidelity } from '../../distillation/fidelity.js';
import type { Side } from '../../distillation/lesson.js';
import { FlowCompressError } from '../../errors.js';
import { assertWritableOutput } from '../../node/atomic-file.js';
import { openModel } from '../../node/model-file.js';
import type { GivenModel, ModelInput } from '../../node/model-input.js';
import type { RunControl } from '../../progress.js';
import type { DistillReport, FlowPoint, MappedLayer } from '../../report/report.js';
import { mappingFileOf, type Classroom } from './classroom.js';
import { diffusionOf, distillTask, type DistillTask } from './task.js';
import { measureSamples } from './sample-quality.js';
import { type DistillOptions, distillOptionsSchema } from './options.js';
import { parseOptions } from '../parse-options.js';
import { startRun } from '../run-info.js';
import { finishedReport, logged, openRun } from '../run-state.js';
import { openTeacherModel } from './teacher-model.js';
import { AUTO, chooseStudent } from './student-choice.js';
import { measuredFlow, trainTaught } from './taught-training.js';
import { openStudent } from '../train/trainee.js';
import { refuseFixedBatch } from '../train/setup.js';
import { openCheckedModel, openWorkspace } from '../workspace.js';
import type { Workspace } from '../workspace.js';
import { writeMeasured, type WrittenModel } from '../written-model.js';

/** Options of `distillModel`: `teacher`, `data` and `output` are needed, everything else has a default. */
export type DistillInput = Pick<DistillOptions, 'teacher' | 'data' | 'output'> & Partial<DistillOptions>;

/**
 * Trains a student, a model or an architecture of the zoo, on the answers and layers of a teacher and writes `options.output`, whole or
 * not at all.
 * @param input of the student: path of an ONNX file, the name of an architecture, bytes, a model, or `auto` for a choice within
 *   `maxSize` bytes, `maxMacs` multiply-accumulates and `maxLatency` milliseconds
 * @returns the written student and the report about it, measured on TEST beside the teacher
 * @throws FlowCompressError `bad-input` for models that do not fit each other or the data, a teacher that is no better than chance, a
 *   mapping that does not fit; `infeasible` where no student is within the limits; `unsupported` naming a node without a gradient rule; `io`, `aborted`
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
  const given = [
    ...[input, settings.teacher, settings.data, settings.test, settings.preprocessFile],
    ...[mapping, settings.features],
  ].filter((file) => typeof file === 'string');
  if (!settings.resume) await assertWritableOutput(settings.output, { force, inputs: given });
  const opened = await clock.stage('open', () => openCheckedModel(settings.teacher, { signal }));
  const auto = input === AUTO;
  if (!auto) refuseLimits(settings);
  const choice = auto
    ? await chooseStudent(opened, settings, clock, filesBeside(opened, mapping), {
        signal,
        onProgress: options.onProgress,
      })
    : undefined;
  const student = choice?.student ?? (await openStudent(input, opened, settings));
  const workspace = await clock.stage('open', () =>
    openWorkspace(
      student.input,
      settings,
      { signal, onProgress: options.onProgress },
      { name: student.name, readTargets: true, diffusion: diffusionOf(settings) },
    ),
  );
  const rules = { force, inputs: [...given, ...workspace.opened.files, ...opened.files] };
  let written: WrittenModel | undefined;
  try {
    const run = choice
      ? choice.run
      : await openRun('distill', workspace, settings, { signal }, filesBeside(opened, mapping));
    const finished = await finishedReport(run, 'distill', settings.output);
    if (finished) return { model: (await openModel(settings.output, { signal })).model, report: finished };
    await assertWritableOutput(settings.output, rules);
    const control = logged({ signal, onProgress: options.onProgress }, run);
    refuseFixedBatch(workspace);
    const teacher = await clock.stage('prepare', () => openTeacherModel(workspace, opened, settings, control));
    const task = distillTask(workspace, settings);
    const { trained, classroom, method } = await trainTaught(
      { workspace, teacher, settings, clock, cache: run?.cache },
      control,
    );
    const made = (written = await writeMeasured(workspace, trained.model, settings, rules, clock, control, {
      input: settings.teacher,
      shownAs: settings.teacher,
      inputNames: teacher.inputNames,
    }));
    const flow = await clock.stage('flow', () => flowsOf(workspace, classroom, trained.model, settings, control));
    const fidelity = await clock.stage('fidelity', () =>
      measureFidelity(
        {
          ...{
            engine: workspace.engine,
            teacher: teacher.opened.model,
            student: trained.model,
            split: 'test' as const,
          },
          scores: { teacher: teacher.scores, student: task.kind === 'classes' ? workspace.scores : undefined },
          batches: () => workspace.batch(made.measureOptions.dataset),
          samples: made.measureOptions.dataset.size,
        },
        control,
      ),
    );
    const samples =
      task.kind === 'values'
        ? await clock.stage('samples', () =>
            measureSamples(
              {
                ...{ workspace, task, settings, dataset: made.measureOptions.dataset },
                teacher: { opened: teacher.opened, outputs: teacher.side.answers },
                students: [{ opened: { model: trained.model, name: student.name }, outputs: task.answering.outputs }],
              },
              control,
            ),
          )
        : undefined;
    await made.publish();
    const notes = [
      ...new Set([
        ...[...(choice?.notes ?? []), ...workspace.notes, ...taskNotes(workspace, task)],
        ...[...teacher.warnings, ...made.warnings, ...(samples?.warnings ?? [])],
      ]),
    ];
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
        ...(task.kind === 'classes' ? { temperature: settings.temperature } : valuesShown(settings, task)),
        ...(settings.rounds !== undefined && { rounds: settings.rounds }),
        ...limitsShown(settings),
        ...(method.name === 'fad' && {
          ...{ select: settings.select, flow: settings.flow, perSample: settings.perSample },
          weighting: settings.weighting,
        }),
        ...(method.mapped && { mapping: settings.mapping }),
      },
      ...{ before: made.before, after: made.after },
      training: trained.summary,
      ...(choice && { candidates: choice.candidates }),
      history: trained.history.map((point) => ({ ...point, terms: point.terms ?? {} })),
      ...(method.mapped && { mapping: mappedLayers(classroom) }),
      flow,
      fidelity: { ...fidelity, ...samples?.qualities[0] },
    };
    await run?.finish(report, settings.output);
    return { model: trained.model, report };
  } finally {
    await workspace.close();
    await written?.output.discard();
  }
}

/** What a run hangs on beside its model and its data. */
function filesBeside(teacher: GivenModel, mapping: string | undefined): Record<string, string | Uint8Array> {
  return { teacher: teacher.content, ...(mapping !== undefined && { 'mapping of layers': mapping }) };
}

/** What decides how values are learned and samples are made. */
function valuesShown(
  { diffusion, draws, sampleSteps, features }: DistillOptions,
  { answering }: Extract<DistillTask, { kind: 'values' }>,
): Record<string, string | number | string[]> {
  return {
    outputs: [...answering.outputs],
    ...(diffusion !== undefined && { diffusion, draws }),
    ...(diffusion !== undefined && features !== undefined && { sampleSteps }),
  };
}

function taskNotes({ working }: Workspace, task: DistillTask): string[] {
  if (task.kind === 'classes' || !working.train.labels) return [];
  return ['The labels were not used: the models are compared by what their outputs are, not by classes.'];
}

/** Limits decide between students, where there is a choice. */
function refuseLimits({ maxSize, maxMacs, maxLatency }: DistillOptions): void {
  const given = Object.entries({ maxSize, maxMacs, maxLatency }).find(([, limit]) => limit !== undefined);
  if (!given) return;
  throw new FlowCompressError('bad-input', `${given[0]} belongs to a student that is chosen.`, {
    hint: `Give ${AUTO} as the student, or leave it out.`,
  });
}

function limitsShown({ maxSize, maxMacs, maxLatency }: DistillOptions): Record<string, number> {
  const limits = Object.entries({ maxSize, maxMacs, maxLatency });
  return Object.fromEntries(limits.filter((limit): limit is [string, number] => limit[1] !== undefined));
}

/** Flows of both models as they are now. */
async function flowsOf(
  workspace: Workspace,
  { teacher, teacherFlow }: Classroom,
  model: ModelProto,
  settings: DistillOptions,
  control: RunControl,
): Promise<DistillReport['flow']> {
  const { units, changes } = await measuredFlow(workspace, model, settings, control);
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
