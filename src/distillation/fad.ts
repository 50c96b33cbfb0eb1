/** FAD: the student learns labels, answers, and how its representation moves along the depth (algorithms of flow alignment). */
import { FlowCompressError } from '../errors.js';
import { Graph, type Value } from '../onnx/graph.js';
import { concat, constantOf, reduceKeeping, unsqueeze } from '../onnx/ops.js';
import type { HostTensor } from '../runtime/engine.js';
import { answersTerms } from './baselines.js';
import { weighted, WEIGHING, type Shares } from './flow-weighting.js';
import { curriculum, layerWeights, normalised, selected } from './flow-weights.js';
import type { Factors, Lesson, LessonControl, LessonRequest, Term } from './lesson.js';
import { flowAlignment, integratedAlignment } from './losses.js';
import { needsMap } from './maps.js';
import { attachChange } from './units.js';

/** Updates between choices of the layers that count, and the memory of the flows behind them. */
const REFRESH = 10;
const MEMORY = 0.9;
/** What the gradient of the flow is brought to, relative to that of the task; updates between, and the bounds of its factor. */
const FLOW_SHARE = 0.1;
const BALANCE = 100;
const BOUNDS = [0.1, 100] as const;
/** Points of the common depth grid. */
const GRID = 64;

export function flowAligned(request: LessonRequest): Lesson {
  const { teacher, student, labelled, options, batchSize } = request;
  const [theirs, own] = [new Graph(teacher.model), new Graph(student.model)];
  // A unit whose map could not be fitted has no flow to align.
  const pairs = request.pairs.filter(({ teacher: t, student: s }) => {
    const [theirUnit, ownUnit] = [teacher.units[t]!, student.units[s]!];
    return (
      (!needsMap(theirUnit) || request.teacherMaps.has(theirUnit.name)) &&
      (!needsMap(ownUnit) || request.studentMaps.has(ownUnit.name))
    );
  });
  if (pairs.length === 0)
    throw new FlowCompressError('unsupported', 'No layers of teacher and student have a flow that could be aligned.', {
      hint: 'Give more --calib-samples, or use --method kd.',
    });
  const studentChanges = new Map<number, Value>();
  const teacherChanges = new Map<number, Value>();
  const mapInputs: Lesson['mapInputs'][number][] = [];
  for (const pair of pairs) {
    if (!studentChanges.has(pair.student)) {
      const unit = student.units[pair.student]!;
      const { value, inputs } = attachChange(own, unit, needsMap(unit) ? 'fed' : undefined);
      studentChanges.set(pair.student, value);
      if (inputs) mapInputs.push({ unit: unit.name, inputs });
    }
    if (!teacherChanges.has(pair.teacher)) {
      const unit = teacher.units[pair.teacher]!;
      teacherChanges.set(pair.teacher, attachChange(theirs, unit, request.teacherMaps.get(unit.name)).value);
    }
  }
  const mean = (graph: Graph, value: Value): Value => reduceKeeping(graph, 'ReduceMean', value, [0]);
  const reduced = options.perSample ? (_: Graph, value: Value): Value => value : mean;
  const flows: Term[] =
    options.flow === 'integrated'
      ? [integratedTerm(request, pairs, own, theirs, studentChanges, teacherChanges, reduced)]
      : pairs.map(({ student: s, teacher: t }) => ({
          ...{ name: 'flow', answer: teacherChanges.get(t)!.name, kept: true },
          ...(!options.perSample && { prepare: meanOverBatch }),
          hint: {
            ...{ value: reduced(own, studentChanges.get(s)!).name, loss: flowAlignment },
            targetDims: [options.perSample ? batchSize : 1],
          },
        }));
  const { shares, balanced } = WEIGHING[options.weighting];
  const flowing = flowControl({
    flows: pairs.map(({ teacher: t }) => request.teacherFlow[t]!),
    depths: pairs.map(({ student: s }) => student.units[s]!.depth),
    ...{
      labelled,
      answered: student.answers.length,
      select: options.select,
      integrated: options.flow === 'integrated',
      shares,
      balanced,
    },
  });
  // In the order of the pairs.
  const watched = pairs.map(({ student: s }) => mean(own, studentChanges.get(s)!).name);
  const { control, answers, heard, observed } = weighted(flowing, request, answersTerms(request), pairs.length);
  return {
    ...{ teacher: theirs.toModel(), student: own.toModel(), parameters: [], mapInputs, pairs, heard, control },
    observed: [...watched, ...observed],
    terms: [...answers, ...flows],
    main: labelled ? 'task' : 'answers',
  };
}

/** Flows between layers by linear interpolation on 64 points of depth, weighed along it with an integral of 1. */
function integratedTerm(
  { teacher, student, teacherFlow, options, batchSize }: LessonRequest,
  pairs: LessonRequest['pairs'],
  own: Graph,
  theirs: Graph,
  studentChanges: ReadonlyMap<number, Value>,
  teacherChanges: ReadonlyMap<number, Value>,
  reduced: (graph: Graph, value: Value) => Value,
): Term {
  const alongDepth = (
    graph: Graph,
    changes: ReadonlyMap<number, Value>,
    depthOf: (place: number) => number,
    part: (graph: Graph, value: Value) => Value,
  ): Value => {
    const places = [...changes.keys()].sort((a, b) => a - b);
    const rows = concat(
      graph,
      places.map((place) => unsqueeze(graph, part(graph, changes.get(place)!), [1])),
      1,
    );
    const matrix = interpolation(places.map(depthOf), GRID);
    const weights = constantOf(graph, matrix.flat(), 'float32');
    const shaped = graph.insertOp('Reshape', [weights, constantOf(graph, [places.length, GRID], 'int64')]);
    return graph.insertOp('MatMul', [rows, shaped]);
  };
  const largest = Math.max(...teacherFlow.map((flow) => flow ?? 0), Number.MIN_VALUE);
  const places = [...new Set(pairs.map(({ teacher: t }) => t))].sort((a, b) => a - b);
  const matrix = interpolation(
    places.map((t) => teacher.units[t]!.depth),
    GRID,
  );
  const importance = Array.from({ length: GRID }, (_, g) =>
    places.reduce((sum, t, l) => sum + matrix[l]![g]! * (0.5 + (0.5 * teacherFlow[t]!) / largest), 0),
  );
  // Trapezoids: the ends count half.
  const quadrature = normalised(importance.map((w, g) => (g === 0 || g === GRID - 1 ? w / 2 : w)));
  const value = alongDepth(own, studentChanges, (s) => student.units[s]!.depth, reduced);
  // Of every sample, as it is kept; the mean comes behind that.
  const answer = alongDepth(
    theirs,
    teacherChanges,
    (t) => teacher.units[t]!.depth,
    (_, change) => change,
  );
  return {
    ...{ name: 'flow', answer: answer.name, kept: true },
    ...(!options.perSample && { prepare: meanOverBatch }),
    hint: {
      ...{ value: value.name, loss: integratedAlignment(quadrature) },
      targetDims: [options.perSample ? batchSize : 1, GRID],
    },
  };
}

/** [layers][points]: what the values at these depths count at the points of an even grid from 0 to 1; constant beyond the ends. */
export function interpolation(depths: readonly number[], points: number): number[][] {
  const matrix = depths.map(() => new Array<number>(points).fill(0));
  for (let g = 0; g < points; g++) {
    const s = points > 1 ? g / (points - 1) : 0;
    const next = depths.findIndex((depth) => depth >= s);
    if (next === 0) matrix[0]![g] = 1;
    else if (next < 0) matrix.at(-1)![g] = 1;
    else {
      const share = (s - depths[next - 1]!) / (depths[next]! - depths[next - 1]!);
      matrix[next - 1]![g] = 1 - share;
      matrix[next]![g] = share;
    }
  }
  return matrix;
}

interface FlowState {
  /** Mean flows of the teacher by pair, on CALIB. */
  readonly flows: readonly number[];
  /** Depths of the student's units by pair. */
  readonly depths: readonly number[];
  readonly labelled: boolean;
  /** Outputs that are compared, which share what the answers count; without labels the first is that of the main loss. */
  readonly answered: number;
  readonly select: LessonRequest['options']['select'];
  /** One term for all layers. */
  readonly integrated: boolean;
  readonly shares: Shares;
  /** Whether the gradient of the flow is brought to a share of that of the task. */
  readonly balanced: boolean;
}

function flowControl({
  flows,
  depths,
  labelled,
  answered,
  select,
  integrated,
  shares,
  balanced,
}: FlowState): LessonControl {
  const base = layerWeights(flows);
  let teacherMeans = [...flows];
  let studentMeans: number[] | undefined;
  let mask = flows.map(() => 1);
  let [factor, seen] = [1, 0];
  const depthMean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
  const weightsAt = (share: number): { weights: number[]; strength: number } => {
    const staged = select === 'curriculum' ? curriculum(depths, share) : { mask, strength: 1 };
    return { weights: normalised(base.map((w, l) => w * staged.mask[l]!)), strength: staged.strength };
  };
  const flowFactors = (share: number): number[] => {
    const { weights, strength } = weightsAt(share);
    return integrated ? [strength] : weights.map((w) => w * strength);
  };
  const first = labelled ? answered : answered - 1;
  const factorsWith = (task: number, answers: number, flow: number, share: number): Factors => {
    const parts = flowFactors(share).map((w) => flow * w);
    const said = new Array<number>(first).fill(answers / answered);
    return { main: labelled ? task : answers / answered, terms: [...said, ...parts] };
  };
  return {
    factors(share) {
      const { task, answers, flow } = shares(depthMean(teacherMeans), depthMean(studentMeans ?? teacherMeans));
      // Without labels the answers take the place of the task.
      return labelled
        ? factorsWith(task, answers, flow * factor, share)
        : factorsWith(0, task + answers, flow * factor, share);
    },
    probes: (steps) =>
      balanced && steps % BALANCE === 0
        ? { task: factorsWith(labelled ? 1 : 0, labelled ? 0 : 1, 0, 0), part: factorsWith(0, 0, 1, 1) }
        : undefined,
    balance(task, part) {
      const wanted = part > 0 ? (FLOW_SHARE * task) / part : BOUNDS[1];
      factor = Math.min(BOUNDS[1], Math.max(BOUNDS[0], wanted));
    },
    observe({ observed }, answers) {
      const means = meansOf(observed, flows.length);
      const blend = (before: readonly number[] | undefined, now: readonly number[]): number[] =>
        before ? now.map((v, l) => MEMORY * before[l]! + (1 - MEMORY) * v) : [...now];
      studentMeans = blend(studentMeans, means);
      const said = answers.map((values) => values.slice(first));
      if (!integrated) teacherMeans = blend(teacherMeans, meansOf(said, flows.length));
      seen++;
      if (select === 'selective' && seen % REFRESH === 0) mask = selected(teacherMeans, studentMeans);
    },
    notes: () => ({
      ...{ teacher: teacherMeans, mask, factor: [factor], seen: [seen] },
      ...(studentMeans && { student: studentMeans }),
    }),
    restore({ teacher, student, mask: chosen, ...rest }) {
      if (teacher) teacherMeans = [...teacher];
      if (student) studentMeans = [...student];
      if (chosen) mask = [...chosen];
      factor = rest.factor?.[0] ?? factor;
      seen = rest.seen?.[0] ?? seen;
    },
    weights: () => weightsAt(1).weights,
  };
}

/** Of the first values, over their elements and the parts of a batch. */
function meansOf(parts: readonly (readonly HostTensor[])[], values: number): number[] {
  const [first = []] = parts;
  return first.slice(0, values).map((_, i) => {
    let [sum, count] = [0, 0];
    for (const part of parts)
      for (const v of part[i]!.data) {
        sum += Number(v);
        count++;
      }
    return sum / count;
  });
}

/** [N, ...] to [1, ...]. */
function meanOverBatch({ data, dims }: HostTensor): HostTensor {
  const [samples = 1, ...rest] = dims;
  const size = data.length / samples;
  const mean = new Float32Array(size);
  for (let i = 0; i < data.length; i++) mean[i % size]! += Number(data[i]) / samples;
  return { type: 'float32', dims: [1, ...rest], data: mean };
}
