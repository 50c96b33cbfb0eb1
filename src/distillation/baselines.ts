/** Distillation methods that FAD is compared with, each in the constants of its paper. */
import { FlowCompressError } from '../errors.js';
import { randomStream, seedOf } from '../data/random.js';
import { intAttribute, intsAttribute } from '../onnx/attributes.js';
import { DataType } from '../onnx/dtypes.js';
import { Graph, type Value } from '../onnx/graph.js';
import { formula, reduce, reshape, transpose } from '../onnx/ops.js';
import { makeTensor } from '../onnx/tensor.js';
import type { Parameter } from '../training/parameters.js';
import { constantControl, type Lesson, type LessonRequest, type Pair, type Side, type Term } from './lesson.js';
import { contrast, distance, relations, unitRows } from './losses.js';
import type { FlowUnit } from './units.js';

/** Shares of labels and answers in vanilla distillation; without labels the answers are all. */
const TASK = 0.1;
const ANSWERS = 0.9;
/** Of the relative squared errors of features, all together. */
const FEATURES = 1;
/** Of the distances of attention maps, all together (beta / 2 with beta = 1000 / elements on feature maps of 8 x 8 is of this size). */
const ATTENTION = 5;
const RELATIONS = 10;
/** Of the contrast, its temperature, and the width of its projections. */
export const CONTRAST = 0.8;
export const CONTRAST_TEMPERATURE = 0.07;
export const CONTRAST_WIDTH = 128;

export function plain({ student, teacher, labelled }: LessonRequest): Lesson {
  if (!labelled)
    throw new FlowCompressError('bad-input', 'Without labels there is nothing that the student could learn alone.', {
      hint:
        student.classes === undefined
          ? 'Give data with an array of what an output should be, under its name, or another --method.'
          : 'Give labelled data, or another --method.',
    });
  return lessonOf(student.model, teacher.model, [], 'task', { main: 1, terms: [] });
}

export function answersOnly(request: LessonRequest): Lesson {
  return withAnswers(request, () => ({ terms: [], factors: [] }));
}

/** The representation of every pair through a learned 1x1 map, on the smaller grid of the two. */
export function featureHints(request: LessonRequest): Lesson {
  return withAnswers(request, (student, teacher, learn) => {
    const faced = comparable(request);
    const built = faced.map(({ own, theirs }) => {
      const grid = smallerGrid(own, theirs);
      const wanted = standardised(teacher, onGrid(teacher, theirs, grid));
      const channels = [own, theirs].map((unit) => unit.dims[unit.channelAxis]!) as [number, number];
      const mapped = standardised(student, channelMap(student, onGrid(student, own, grid), channels, learn));
      return { name: 'features', hint: { value: mapped.name, loss: 'mse' as const }, answer: wanted.name };
    });
    return { terms: built, factors: built.map(() => FEATURES / built.length), faced };
  });
}

/** vec(sum over channels of A^2) / its norm, on the smaller grid; for tokens the mean over channels at every position. */
export function attentionTransfer(request: LessonRequest): Lesson {
  return withAnswers(request, (student, teacher) => {
    const faced = comparable(request, ({ dims }) => dims.length > 1);
    const built = faced.map(({ own, theirs }): Term => {
      const grid = smallerGrid(own, theirs);
      const map = (graph: Graph, unit: FlowUnit): Value => {
        const calc = formula(graph);
        const maps = onGrid(graph, unit, grid);
        const energy = reduce(graph, 'ReduceSum', calc('Mul', maps, maps), [1]);
        return unitRows(graph, reshape(graph, energy, [0, -1]));
      };
      return {
        ...{ name: 'attention', hint: { value: map(student, own).name, loss: distance } },
        ...{ answer: map(teacher, theirs).name, kept: true },
      };
    });
    return { terms: built, factors: built.map(() => ATTENTION / built.length), faced };
  });
}

export function relational(request: LessonRequest): Lesson {
  return withAnswers(request, (student, teacher) => {
    const faced = comparable(request);
    const built = faced.map(({ own, theirs }): Term => {
      const pooled = (graph: Graph, unit: FlowUnit): Value => onGrid(graph, unit, smallerGrid(own, theirs));
      const value = pooled(student, own).name;
      const answer = pooled(teacher, theirs);
      return {
        ...{ name: 'relations', answer: answer.name },
        hint: {
          ...{ value, loss: relations },
          targetDims: [request.batchSize, theirs.dims[theirs.channelAxis]!, ...smallerGrid(own, theirs)],
        },
      };
    });
    return { terms: built, factors: built.map(() => RELATIONS / built.length), faced };
  });
}

/** Of both sides. @throws FlowCompressError `unsupported` where one of them has none */
export function featuresOf({ student, teacher }: Pick<LessonRequest, 'student' | 'teacher'>): {
  own: NonNullable<Side['features']>;
  theirs: NonNullable<Side['features']>;
} {
  const [own, theirs] = [student.features, teacher.features];
  if (own && theirs) return { own, theirs };
  throw new FlowCompressError('unsupported', 'Teacher or student has no layer behind features of one row per sample.', {
    hint: 'Use another --method.',
  });
}

/** Features in front of the last layer, both through learned projections of 128 to norm 1. */
export function contrastive(request: LessonRequest): Lesson {
  const { own, theirs } = featuresOf(request);
  return withAnswers(request, (student, teacher, learn) => {
    const project = (x: Value, size: number, part: string): Value =>
      student.insertOp('MatMul', [x, learn(`${part} projection`, [size, CONTRAST_WIDTH], size)]);
    const value = project(student.mustGet(own.value), own.size, 'student');
    const matrix = learn('teacher projection', [theirs.size, CONTRAST_WIDTH], theirs.size);
    const loss = contrast(matrix.name, CONTRAST_TEMPERATURE);
    const answer = teacher.insertOp('Identity', [teacher.mustGet(theirs.value)]).name;
    const term: Term = {
      ...{ name: 'contrast', answer, kept: true },
      hint: { value: value.name, loss, targetDims: [request.batchSize, theirs.size], reads: [matrix.name] },
    };
    return { terms: [term], factors: [CONTRAST] };
  });
}

export type Learn = (name: string, dims: readonly number[], fanIn: number) => Value;

/** What a method adds to labels and answers; `faced` are the pairs of layers that it compares. */
interface Addition {
  readonly terms: Term[];
  readonly factors: number[];
  readonly faced?: readonly Pair[];
}

/** What labels and answers count; without labels the answers count 1, or nothing where they are 0. */
interface AnswerShares {
  readonly task: number;
  readonly answers: number;
}

/** Labels and answers, and what `more` adds to the two graphs. */
export function withAnswers(
  { student, teacher, labelled, seed }: LessonRequest,
  more: (student: Graph, teacher: Graph, learn: Learn) => Addition,
  shares: AnswerShares = { task: TASK, answers: ANSWERS },
): Lesson {
  const [own, theirs] = [new Graph(student.model), new Graph(teacher.model)];
  const parameters: Parameter[] = [];
  const learn: Learn = (name, dims, fanIn) => {
    const size = dims.reduce((a, b) => a * b, 1);
    const random = randomStream(seedOf(seed, parameters.length, 4711));
    const data = Float32Array.from({ length: size }, () => random.normal() / Math.sqrt(fanIn));
    const value = own.addInitializer(makeTensor(own.uniqueName(name), DataType.FLOAT, dims, data));
    parameters.push({ name: value.name, dims, size, decays: true });
    return value;
  };
  const { terms, factors, faced = [] } = more(own, theirs, learn);
  const answers = answersTerms({ student, teacher, labelled });
  // The outputs share what the answers count; without labels the first one is the main loss.
  const each = (labelled ? shares.answers : Math.sign(shares.answers)) / student.answers.length;
  return {
    ...lessonOf(own.toModel(), theirs.toModel(), [...answers, ...terms], labelled ? 'task' : 'answers', {
      main: labelled ? shares.task : each,
      terms: [...answers.map(() => each), ...factors],
    }),
    parameters,
    pairs: faced.map(({ student: s, teacher: t }) => ({ student: s, teacher: t })),
  };
}

/**
 * What is held against the teacher's answers beside the loss of the output: T^2 KL of class scores, or the relative squared error of
 * every output. Without labels the loss of the output is that of the first one.
 */
export function answersTerms({
  student,
  teacher,
  labelled,
}: Pick<LessonRequest, 'student' | 'teacher' | 'labelled'>): Term[] {
  const loss = student.classes === undefined ? 'relative' : 'kl';
  const terms = student.answers.map((value, i): Term => {
    return { name: 'answers', hint: { value, loss }, answer: teacher.answers[i]!, kept: true };
  });
  return labelled ? terms : terms.slice(1);
}

export function lessonOf(
  student: Lesson['student'],
  teacher: Lesson['teacher'],
  terms: readonly Term[],
  main: Lesson['main'],
  factors: { main: number; terms: number[] },
): Lesson {
  return {
    ...{ student, teacher, terms, main, pairs: [], parameters: [], mapInputs: [], observed: [] },
    control: constantControl(factors),
  };
}

/** A pair with its units. */
interface FacedUnits extends Pair {
  readonly own: FlowUnit;
  readonly theirs: FlowUnit;
}

/**
 * Pairs whose representations can be brought to one grid.
 * @param suits what is asked of the student's unit besides
 * @throws FlowCompressError `unsupported` where there is none: the method would compare nothing but answers
 */
function comparable(
  { student, teacher, pairs }: LessonRequest,
  suits: (own: FlowUnit) => boolean = () => true,
): FacedUnits[] {
  const found = pairs.flatMap((pair): FacedUnits[] => {
    const [own, theirs] = [student.units[pair.student]!, teacher.units[pair.teacher]!];
    const alike = own.dims.length === theirs.dims.length && own.dims.length <= 4;
    return alike && suits(own) ? [{ ...pair, own, theirs }] : [];
  });
  if (found.length > 0) return found;
  throw new FlowCompressError(
    'unsupported',
    'No layers of teacher and student have positions of one kind to be compared at, as images and tokens have not.',
    { hint: 'Use another --method, such as kd or fad.' },
  );
}

const gridOf = ({ dims, channelAxis }: FlowUnit): number[] => dims.filter((_, axis) => axis !== channelAxis);

function smallerGrid(a: FlowUnit, b: FlowUnit): number[] {
  const [first, second] = [gridOf(a), gridOf(b)];
  return first.map((n, i) => greatestCommonDivisor(n, second[i]!));
}

function greatestCommonDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestCommonDivisor(b, a % b);
}

/** The representation [N, channels, ...grid], averaged down to a grid that divides its own. */
function onGrid(graph: Graph, unit: FlowUnit, grid: readonly number[]): Value {
  const { value, dims, channelAxis } = unit;
  const own = gridOf(unit);
  const given = graph.mustGet(value);
  const axes = dims.map((_, axis) => axis).filter((axis) => axis !== channelAxis);
  const first =
    channelAxis === 0 ? given : transpose(graph, given, [0, channelAxis + 1, ...axes.map((axis) => axis + 1)]);
  const kernel = own.map((n, i) => n / grid[i]!);
  if (kernel.every((k) => k === 1)) return graph.insertOp('Identity', [first]);
  return graph.insertOp(
    'AveragePool',
    [first],
    [intsAttribute('kernel_shape', kernel), intsAttribute('strides', kernel)],
  );
}

/** A learned matrix on the channels of [N, C, ...grid]. */
function channelMap(graph: Graph, x: Value, [from, to]: readonly [number, number], learn: Learn): Value {
  const rows = reshape(graph, x, [0, from, -1]);
  return graph.insertOp('MatMul', [learn('channel map', [to, from], from), rows]);
}

/** In units of its own root mean square over the batch, as [N, C, positions]. */
function standardised(graph: Graph, x: Value): Value {
  const calc = formula(graph);
  const flat = graph.insertOp('Flatten', [x], [intAttribute('axis', 1)]);
  const square = reduce(graph, 'ReduceMean', calc('Mul', flat, flat));
  return calc('Div', flat, calc('Sqrt', calc('Add', square, 1e-12)));
}
