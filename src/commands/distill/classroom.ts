/** Where a student meets its teacher: layers paired up, the lesson of the method, the teacher's answers, kept where they come again. */
import { readFile } from 'node:fs/promises';
import type { ModelProto } from 'onnx-buf';
import type { Dataset } from '../../data/dataset.js';
import { firstSamples } from '../../data/subset.js';
import { answersInMemory, openAnswers, type AnswerStore } from '../../distillation/answers.js';
import { meanChanges } from '../../distillation/changes.js';
import { ckaMatrix, type CentredGram } from '../../distillation/cka.js';
import { gatherFeatureGrams } from '../../distillation/cka-features.js';
import type { Lesson, Pair, Side } from '../../distillation/lesson.js';
import { mapByAssignment, mapByDepth, readMapping } from '../../distillation/mapping.js';
import type { ChannelMap } from '../../flow/channel-map.js';
import { fitMaps } from '../../distillation/maps.js';
import { findDistillationMethod, lessonBy, type DistillationMethod } from '../../distillation/methods.js';
import { sideOf } from '../../distillation/side.js';
import { FlowCompressError, messageOf } from '../../errors.js';
import { openAnswerFiles } from '../../node/answer-file.js';
import { fingerprint } from '../../node/fingerprint.js';
import { toBytes } from '../../onnx/to-bytes.js';
import type { RunControl } from '../../progress.js';
import { traceShapes, type TracedValues } from '../../runtime/trace.js';
import type { DistillTask } from './task.js';
import type { DistillOptions } from './options.js';
import type { OpenedTeacher } from './teacher-model.js';
import { askedOf, teachingOf, type Teaching } from '../train/teaching.js';
import { SAMPLES_AT_HAND, type Workspace } from '../workspace.js';

/** CALIB samples by which layers are likened. */
const LIKENED = 256;
/** Samples per engine call for that. */
const LIKENED_BATCH = 64;

export interface Classroom {
  readonly teaching: Teaching;
  readonly lesson: Lesson;
  readonly teacher: OpenedTeacher;
  readonly student: Side;
  readonly shapes: TracedValues;
  readonly cka: readonly (readonly number[])[] | undefined;
  readonly teacherFlow: readonly (number | undefined)[];
  readonly calib: Dataset;
  readonly close: () => Promise<void>;
}

/** What is measured of a teacher's units, which is the same for every student on the same data. */
export interface TeacherStudy {
  readonly maps: ReadonlyMap<string, ChannelMap>;
  readonly flow: readonly (number | undefined)[];
  readonly grams: readonly CentredGram[];
}

interface ClassroomRequest {
  readonly workspace: Workspace;
  readonly teacher: OpenedTeacher;
  readonly task: DistillTask;
  /** The form of the student that trains, and the value that its main loss reads. */
  readonly base: ModelProto;
  readonly read: string;
  readonly method: DistillationMethod;
  /** What was measured of the teacher before. */
  readonly study?: TeacherStudy | undefined;
  readonly settings: DistillOptions;
  readonly control: RunControl;
}

/** @param mixed whether samples are mixed, so that no answer comes again */
export async function openClassroom(request: ClassroomRequest, mixed: boolean): Promise<Classroom> {
  const { workspace, teacher, base, method, settings, control } = request;
  const { engine, working, feedsFor, batch } = workspace;
  const { calib } = working;
  const shapes = await traceShapes(engine, base, feedsFor(1));
  const { task } = request;
  const side = sideOf(base, shapes, task.answering);
  const student: Side = { ...side, answers: [request.read, ...side.answers.slice(1)] };
  const { pairs, cka } = method.mapped ? await pairUp(request, student, control) : { pairs: [], cka: undefined };
  const batches = () => batch(calib);
  const about = (model: ModelProto, values: TracedValues, { units }: Side) => ({
    ...{ engine, model, shapes: values, units, batches, samples: calib.size },
  });
  const { maps: teacherMaps, flow: teacherFlow } = request.study ?? (await studiedFlow(workspace, teacher, control));
  const studentMaps = method.mapped ? await fitMaps(about(base, shapes, student), control) : new Map();
  const lesson = lessonBy(method, {
    ...{ teacher: teacher.side, student, pairs, teacherFlow, teacherMaps, studentMaps, options: settings },
    ...{ batchSize: settings.batchSize, seed: settings.seed, samples: working.train.size },
    answerDims: shapes.get(request.read)!.dims,
    labelled: task.kind === 'classes' ? task.labelled : task.aim !== undefined,
    ...(task.kind === 'values' && { generation: task.generation }),
  });
  const closing: (() => Promise<void>)[] = [];
  // Samples that nothing changes are the same in every epoch.
  const rounds = settings.augment.length === 0 ? 1 : settings.rounds;
  const keeps =
    lesson.terms.every(({ kept, answer }) => kept ?? answer === undefined) && !mixed && rounds !== undefined;
  const openStore = async (width: number): Promise<AnswerStore | undefined> => {
    const samples = working.train.size;
    if (settings.cacheTeacher === undefined) return answersInMemory(rounds ?? 1, samples, width);
    const store = await openAnswerFiles(settings.cacheTeacher, await keyOf(request, lesson), samples, width);
    closing.push(store.close);
    return store;
  };
  const asked = askedOf(lesson, teacher.side.answers);
  if (settings.cacheTeacher !== undefined && asked.length === 0)
    throw new FlowCompressError('bad-input', `Nothing is asked of the teacher by --method ${method.name}.`, {
      hint: 'Leave --cache-teacher out.',
    });
  if (settings.cacheTeacher !== undefined && !keeps)
    throw new FlowCompressError('bad-input', 'No answer of the teacher comes again that --cache-teacher could keep.', {
      hint:
        mixed || settings.augment.length > 0
          ? 'Give --rounds, after which augmentation repeats itself, and leave mixup out.'
          : 'The method compares whole representations: leave --cache-teacher out, or use fad or kd.',
    });
  const answers = await openAnswers(engine, lesson.teacher, asked, keeps ? openStore : undefined);
  closing.push(() => answers.release());
  const teaching = teachingOf(
    {
      ...{ engine, lesson, answers, rounds, units: student.units, shapes, calib, maps: studentMaps },
      batch: (dataset) => batch(dataset),
    },
    control,
  );
  return {
    ...{ teaching, lesson, teacher, student, shapes, cka, teacherFlow, calib },
    close: async () => {
      for (const close of closing) await close();
    },
  };
}

/** The file with the mapping of layers that the options name. */
export function mappingFileOf({ method, mapping }: Pick<DistillOptions, 'method' | 'mapping'>): string | undefined {
  const isFile = findDistillationMethod(method)?.mapped && mapping !== 'depth' && mapping !== 'cka';
  return isFile ? mapping : undefined;
}

/** Channel maps and mean flowChange of the teacher's units on CALIB. */
export async function studiedFlow(
  { engine, working: { calib }, batch }: Workspace,
  { model, shapes, side: { units } }: OpenedTeacher,
  control: RunControl,
): Promise<Pick<TeacherStudy, 'maps' | 'flow'>> {
  const about = { engine, model, shapes, units, batches: () => batch(calib), samples: calib.size };
  const maps = await fitMaps(about, control);
  return { maps, flow: await meanChanges({ ...about, maps }, control) };
}

/** What answers hang on. */
async function keyOf({ teacher, settings, workspace }: ClassroomRequest, lesson: Lesson): Promise<string> {
  const { data, augment, rounds, seed, diffusion } = settings;
  // Samples as they are fed stand for all that the preprocessing depends on.
  const fed = Object.values(workspace.feedsFor(SAMPLES_AT_HAND)).map(({ data: { buffer, byteOffset, byteLength } }) =>
    fingerprint(new Uint8Array(buffer, byteOffset, byteLength)),
  );
  const parts = [
    await fingerprint(toBytes(lesson.teacher)),
    askedOf(lesson, teacher.side.answers),
    await fingerprint(data),
    await Promise.all(fed),
    { augment, rounds, seed, train: workspace.working.train.size, diffusion },
  ];
  return JSON.stringify(parts);
}

async function pairUp(
  { workspace, teacher, base, settings, study }: ClassroomRequest,
  student: Side,
  control: RunControl,
): Promise<{ pairs: Pair[]; cka: number[][] | undefined }> {
  const layers = { teacher: teacher.side.units, student: student.units };
  const pairsOf = (mapping: readonly number[]): Pair[] => mapping.map((t, s) => ({ student: s, teacher: t }));
  if (settings.mapping === 'depth') return { pairs: pairsOf(mapByDepth(layers)), cka: undefined };
  const file = mappingFileOf(settings);
  if (file !== undefined) {
    const names = (side: Side): string[] => side.units.map(({ name }) => name);
    const mapping = readMapping(await jsonIn(settings.mapping), names(teacher.side), names(student));
    return { pairs: pairsOf(mapping), cka: undefined };
  }
  const theirs = study?.grams ?? (await gramsOf(workspace, teacher.model, teacher.side, control));
  const cka = ckaMatrix(theirs, await gramsOf(workspace, base, student, control));
  return { pairs: pairsOf(mapByAssignment({ ...layers, cka })), cka };
}

/** Of what the units of a model give on the first samples of CALIB. */
export async function gramsOf(
  { engine, working, batch }: Workspace,
  model: ModelProto,
  { units }: Pick<Side, 'units'>,
  control: RunControl,
): Promise<CentredGram[]> {
  const samples = firstSamples(working.calib, LIKENED);
  const values = units.map(({ value }) => value);
  const grams = await gatherFeatureGrams(
    { ...{ engine, model, values, samples: samples.size }, batches: () => batch(samples, LIKENED_BATCH) },
    control,
  );
  return values.map((value, i) => {
    const gram = grams.get(value);
    if (gram) return gram;
    throw new FlowCompressError('unsupported', `What ${units[i]!.name} gives is not a row of floats per sample.`, {
      node: units[i]!.name,
      hint: 'Pair layers by --mapping depth or a file instead.',
    });
  });
}

async function jsonIn(path: string): Promise<unknown> {
  try {
    return JSON.parse(await readFile(path, 'utf8'));
  } catch (error) {
    throw new FlowCompressError('bad-input', `${path} is no mapping of layers: ${messageOf(error)}`, {
      node: path,
      hint: 'Give depth, cka, or a JSON file {"student layer": "teacher layer", ...}.',
      cause: error,
    });
  }
}
