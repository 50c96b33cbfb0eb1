/** Recovery by the loss of a distillation method: the compressed model as the student, the original as its teacher. */
import type { ModelProto } from 'onnx-buf';
import { openAnswers } from '../../distillation/answers.js';
import { meanChanges } from '../../distillation/changes.js';
import type { Pair, Side } from '../../distillation/lesson.js';
import { fitMaps } from '../../distillation/maps.js';
import { findDistillationMethod } from '../../distillation/methods.js';
import { sideOf } from '../../distillation/side.js';
import type { FlowUnit } from '../../distillation/units.js';
import { FlowCompressError } from '../../errors.js';
import { Graph } from '../../onnx/graph.js';
import type { RunControl } from '../../progress.js';
import { learnerOn, rootMeanSquare, NO_SCALE } from '../../recovery/learned.js';
import { findTeaching, type TeachingName } from '../../recovery/teachings.js';
import type { Tuition } from '../../recovery/tuition.js';
import { readFloats } from '../../onnx/tensor.js';
import { traceShapes } from '../../runtime/trace.js';
import { layoutOf, type Parameter } from '../../training/parameters.js';
import { classTargets } from '../../training/targets.js';
import { distillOptionsSchema } from '../distill/options.js';
import { askedOf, teachingOf } from '../train/teaching.js';
import type { Workspace } from '../workspace.js';

export interface TaughtRecovery {
  readonly workspace: Workspace;
  readonly name: TeachingName;
  /** The original, prepared. */
  readonly teacher: ModelProto;
  /** The student in plain float, in which its layers are found; its names are those of the form that learns. */
  readonly plain: ModelProto;
  readonly temperature: number;
  readonly batchSize: number;
  readonly seed: number;
}

/**
 * Refuses a teaching that the model or the data have not got what it takes for.
 * @throws FlowCompressError `unsupported` without class scores; `bad-input` for labels that are not there
 */
export function refuseTeaching(name: TeachingName, { scores, working, opened }: Workspace): void {
  if (findTeaching(name).method === undefined) return;
  if (scores === undefined)
    throw new FlowCompressError(
      'unsupported',
      `The teaching ${name} is one of class scores, which the model does not give.`,
      {
        node: opened.name,
        hint: 'Use --teaching hints or answers.',
      },
    );
  if (name === 'labels' && !working.train.labels)
    throw new FlowCompressError('bad-input', 'The data has no labels to learn from.', {
      node: working.train.source,
      hint: 'Give labelled data, or another --teaching: answers needs none.',
    });
}

/** The teaching, or the answers alone where it takes what the model or the data have not got: for what nobody asked for by name. */
export function possibleTeaching(name: TeachingName, { scores, working }: Workspace): TeachingName {
  const isPossible =
    findTeaching(name).method === undefined || (scores !== undefined && (name !== 'labels' || working.train.labels));
  return isPossible ? name : 'answers';
}

/** What `recover` is to go by. Errors as `refuseTeaching` and as the method's. @param student the form that learns */
export async function tuitionByMethod(
  { workspace, name, teacher: original, plain, temperature, batchSize, seed }: TaughtRecovery,
  student: ModelProto,
  control: RunControl,
): Promise<Tuition> {
  refuseTeaching(name, workspace);
  const { engine, feedsFor, working, batch } = workspace;
  const answering = { kind: 'classes', scores: workspace.scores! } as const;
  const { calib, train } = working;
  const method = findDistillationMethod(findTeaching(name).method!)!;
  const teacherShapes = await traceShapes(engine, original, feedsFor(1));
  const shapes = await traceShapes(engine, plain, feedsFor(1));
  const teacher = sideOf(original, teacherShapes, answering);
  const own = sideOf(plain, shapes, answering);
  const logits = own.answers[0]!;
  const classes = own.classes!;
  const values = new Graph(student);
  const has = (value: string): boolean => values.value(value) !== undefined;
  const side: Side = {
    ...{ model: student, answers: own.answers, classes },
    units: own.units.filter((unit) => namesOf(unit).every(has)),
    features: own.features && has(own.features.value) ? own.features : undefined,
  };
  const about = { engine, batches: () => batch(calib), samples: calib.size };
  const ofTeacher = { ...about, model: original, shapes: teacherShapes, units: teacher.units };
  const ofStudent = { ...about, model: plain, shapes, units: side.units };
  const teacherMaps = method.mapped ? await fitMaps(ofTeacher, control) : new Map();
  const studentMaps = method.mapped ? await fitMaps(ofStudent, control) : new Map();
  const labelled = train.labels !== undefined;
  const lesson = method.lesson({
    ...{ teacher, student: side, pairs: method.mapped ? pairsByName(side, teacher) : [] },
    ...{ teacherMaps, studentMaps, labelled, batchSize, samples: train.size, seed },
    teacherFlow: method.mapped ? await meanChanges({ ...ofTeacher, maps: teacherMaps }, control) : [],
    answerDims: shapes.get(logits)!.dims,
    options: { ...lessonOptions(), temperature },
  });
  const answers = await openAnswers(engine, lesson.teacher, askedOf(lesson, teacher.answers), undefined);
  const teaching = teachingOf(
    {
      ...{ engine, lesson, answers, rounds: undefined, units: side.units, shapes, calib, maps: studentMaps },
      batch: (dataset) => batch(dataset),
    },
    { signal: control.signal },
  );
  const beside = inUnits(teaching.student, teaching.parameters);
  return {
    layout: ` taught ${name} ${layoutOf(beside.parameters)}`,
    ...{ model: beside.model, output: logits, loss: lesson.main === 'task' ? 'cross-entropy' : 'kl' },
    ...{ parameters: beside.parameters, hints: teaching.hints, observed: teaching.observed },
    targets: teaching.answering ?? {
      from: 'samples',
      of: ({ labels }) => ({ target: classTargets(labels!, classes) }),
    },
    judgedBy: name === 'labels' ? 'labels' : 'divergence',
    trialFeeds: (rows) => teaching.trialFeeds(rows),
    complete: (input, fed, now) => teaching.complete(input, fed, now),
    onStep(result) {
      teaching.onStep(result);
    },
    notes: () => teaching.notes(),
    restore(notes) {
      teaching.restore(notes);
    },
    release: () => answers.release(),
  };
}

/** As `distill` has them by default. */
function lessonOptions(): ReturnType<typeof distillOptionsSchema.parse> {
  return distillOptionsSchema.parse({ teacher: '-', data: '-', output: '-' });
}

/** A cut model keeps the names of the blocks and layers that it has left. */
function pairsByName(student: Side, teacher: Side): Pair[] {
  const places = new Map(teacher.units.map(({ name }, i) => [name, i]));
  return student.units.flatMap(({ name }, s) => {
    const t = places.get(name);
    return t === undefined ? [] : [{ student: s, teacher: t }];
  });
}

/** Values that a unit's flow and representation are read from. */
function namesOf({ value, change }: FlowUnit): string[] {
  if (change.kind === 'block') return [value, change.branch, change.output];
  return [value, change.step.from.name, change.step.to.name];
}

/** Parameters beside the student count in units of their own size, as its own do. */
function inUnits(
  model: ModelProto,
  parameters: readonly Parameter[],
): { model: ModelProto; parameters: readonly Parameter[] } {
  if (parameters.length === 0) return { model, parameters };
  const graph = new Graph(model);
  const learner = learnerOn(graph);
  for (const { name, dims } of parameters) {
    const value = graph.mustGet(name);
    const first = readFloats(value.initializer!);
    const units = new Float32Array(first.length).fill(Math.max(rootMeanSquare(first), NO_SCALE));
    const [tensor, latent] = learner.learn(`${name} in units`, dims, first, units);
    graph.replaceUses(value, learner.inUnits(latent, tensor, dims));
  }
  // What the loss reads is no output yet: nothing may be taken for dead.
  return { model: graph.toModel(), parameters: learner.parameters };
}
