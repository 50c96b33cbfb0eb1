/**
 * Weightings of flow alignment beside the adaptive one: joint training (temperature and layers follow how close the student is),
 * and variational training (what a term counts is learned against its size).
 */
import type { Value } from '../onnx/graph.js';
import { BEHIND_END, reshape, slice } from '../onnx/ops.js';
import type { HostTensor } from '../runtime/engine.js';
import { LOSSES, type Loss } from '../training/losses.js';
import { closeness } from './closeness.js';
import { adaptiveWeights, normalised } from './flow-weights.js';
import {
  classesOf,
  type Factors,
  type Lesson,
  type LessonControl,
  type LessonRequest,
  type Notes,
  type Term,
  type Weighting,
} from './lesson.js';

/** What task, answers and flow count, from the means of the flows of teacher and student over the depth. */
export type Shares = (teacher: number, student: number) => { task: number; answers: number; flow: number };

/** What the control of the flow does in each weighting, before `weighted` adds to it. */
export const WEIGHING: Readonly<Record<Weighting, { readonly shares: Shares; readonly balanced: boolean }>> = {
  adaptive: { shares: adaptiveWeights, balanced: true },
  joint: { shares: adaptiveWeights, balanced: true },
  // As the adaptive shares are for equal flows.
  fixed: { shares: () => ({ task: 0.5, answers: 0.25, flow: 0.25 }), balanced: false },
  variational: { shares: () => ({ task: 1, answers: 1, flow: 1 }), balanced: false },
};

export interface Weighted extends Required<Pick<Lesson, 'control' | 'heard' | 'observed'>> {
  /** The terms of the answers beside the loss of the output: that of the class scores, where there are labels. */
  readonly answers: readonly Term[];
}

/**
 * A control of the flow in the weighting of the options.
 * @param flowing factors of the answers first, where there are labels, then of the flow's terms
 * @param pairs layers that are aligned
 */
export function weighted(
  flowing: LessonControl,
  {
    labelled,
    options,
    student,
    teacher,
    batchSize,
  }: Pick<LessonRequest, 'labelled' | 'options' | 'student' | 'teacher' | 'batchSize'>,
  answers: readonly Term[],
  pairs: number,
): Weighted {
  const plain = { control: flowing, heard: [], observed: [], answers };
  if (options.weighting === 'adaptive' || options.weighting === 'fixed') return plain;
  const classes = classesOf(teacher, `--weighting ${options.weighting}`);
  if (options.weighting === 'variational') return { ...plain, control: variationalControl(flowing, labelled) };
  const features = student.features && teacher.features && { own: student.features, theirs: teacher.features };
  const joint = jointControl(flowing, {
    ...{ labelled, temperature: options.temperature, pairs, featured: features !== undefined },
    layered: options.flow === 'layers',
  });
  return {
    control: joint.control,
    heard: features ? [{ answer: features.theirs.value }] : [],
    observed: features ? [features.own.value] : [],
    answers: answers.map((term) => ({
      ...term,
      prepare: (said) => withTemperature(said, joint.temperature()),
      hint: { ...term.hint, loss: klAtFedTemperature, targetDims: [batchSize, classes + 1] },
    })),
  };
}

/** Updates between looks at how close the student is. */
const REFRESH = 10;
/** What closeness takes off: of the temperature, of the weight of a layer; and the bounds of that weight. */
const [COOLING, EASING] = [0.2, 0.5];
const BOUNDS = [0.1, 2] as const;

interface JointState {
  readonly labelled: boolean;
  /** T0. */
  readonly temperature: number;
  readonly pairs: number;
  /** Whether the features in front of the last layers are observed, behind the flows, and heard. */
  readonly featured: boolean;
  /** Whether every layer has a term of its own. */
  readonly layered: boolean;
}

/**
 * Every 10 updates, with the closeness F of the batch: temperature T0 (1 + 0.2 (1 - F)); weight of every layer
 * clamp((1 + gap) (1 - F / 2), 0.1, 2), gap = |D^T - D^S| / max(D^T, D^S), brought to mean 1 and averaged with the one before.
 */
export function jointControl(
  flowing: LessonControl,
  { labelled, temperature: start, pairs, featured, layered }: JointState,
): { readonly control: LessonControl; readonly temperature: () => number } {
  let layers = new Array<number>(pairs).fill(1);
  let [temperature, seen] = [start, 0];
  const first = labelled ? 1 : 0;
  const reweighted = (parts: readonly number[]): number[] => {
    const whole = parts.reduce((a, b) => a + b, 0);
    return normalised(parts.map((part, l) => part * layers[l]!)).map((share) => share * whole);
  };
  const control: LessonControl = {
    ...flowing,
    factors(share) {
      const { main, terms } = flowing.factors(share);
      return layered ? { main, terms: [...terms.slice(0, first), ...reweighted(terms.slice(first))] } : { main, terms };
    },
    observe(result, answers, batches) {
      flowing.observe?.(result, answers, batches);
      seen++;
      if (seen % REFRESH > 0) return;
      // The last part of the batch will do.
      const [said, { target }] = [answers.at(-1)!, batches.at(-1)!];
      const own = featured ? result.observed.at(-1)!.at(-1)! : undefined;
      const near = closeness({
        teacher: labelled ? said[0]! : target,
        student: result.outputs.at(-1)!,
        target,
        features: own && { teacher: said.at(-1)!, student: own },
      });
      temperature = start * (1 + COOLING * (1 - near));
      const { teacher, student } = flowing.notes!();
      layers = nextLayers(layers, teacher!, student!, near);
    },
    notes: () => ({ ...flowing.notes?.(), layers, temperature: [temperature], watched: [seen] }),
    restore(notes: Notes) {
      flowing.restore?.(notes);
      if (notes.layers) layers = [...notes.layers];
      temperature = notes.temperature?.[0] ?? temperature;
      seen = notes.watched?.[0] ?? seen;
    },
    weights: () => reweighted(flowing.weights!()),
  };
  return { control, temperature: () => temperature };
}

/** @param before weights with mean 1 @param teacher flows by layer @param student the same @param near F */
export function nextLayers(
  before: readonly number[],
  teacher: ArrayLike<number>,
  student: ArrayLike<number>,
  near: number,
): number[] {
  const fresh = before.map((_, l) => {
    const [theirs, own] = [teacher[l]!, student[l]!];
    const gap = Math.abs(theirs - own) / Math.max(theirs, own, Number.MIN_VALUE);
    return Math.min(BOUNDS[1], Math.max(BOUNDS[0], (1 + gap) * (1 - EASING * near)));
  });
  const mean = fresh.reduce((a, b) => a + b, 0) / fresh.length;
  return fresh.map((w, l) => (w / mean + before[l]!) / 2);
}

/** The logits with the temperature behind them: [N, classes + 1]. */
function withTemperature({ data, dims: [samples = 1] }: HostTensor, temperature: number): HostTensor {
  const classes = data.length / samples;
  const rows = new Float32Array(samples * (classes + 1)).fill(temperature);
  for (let n = 0; n < samples; n++)
    rows.set((data as Float32Array).subarray(n * classes, (n + 1) * classes), n * (classes + 1));
  return { type: 'float32', dims: [samples, classes + 1], data: rows };
}

/** T^2 KL of softmax(t / T) and softmax(z / T) for targets [N, classes + 1] that end with T. */
export const klAtFedTemperature: Loss = (context) => {
  const { graph, output, target } = context;
  const columns = (from: number, to: number): Value => slice(graph, target, [1], [from], [to], [1]);
  const temperature = columns(-1, BEHIND_END);
  const cooled = (value: Value): Value => graph.insertOp('Div', [value, temperature]);
  const rows = { output: cooled(reshape(graph, output, [0, -1])), target: cooled(columns(0, -1)), rank: 2 };
  const divergence = LOSSES.kl({ ...context, ...rows, temperature: 1 });
  const flat = reshape(graph, temperature, [-1]);
  return graph.insertOp('Mul', [divergence, graph.insertOp('Mul', [flat, flat])]);
};

/** Step of the learned logarithms, and their bounds. */
const RATE = 0.02;
const LARGEST = 4;

/**
 * Minimises L_task + sum_k (exp(-u_k) L_k + u_k) over the u of answers and flow, |u| <= 4, by gradient steps
 * u -= 0.02 (1 - exp(-u) L) on the losses that were seen: a term comes to count the inverse of its size.
 * @param flowing factors of the flow's terms as shares of it
 */
export function variationalControl(flowing: LessonControl, labelled: boolean): LessonControl {
  let [answers, flow] = [0, 0];
  let parts: readonly number[] = [];
  const first = labelled ? 1 : 0;
  const learned = (u: number, loss: number): number =>
    Math.min(LARGEST, Math.max(-LARGEST, u - RATE * (1 - Math.exp(-u) * loss)));
  return {
    ...flowing,
    factors(share): Factors {
      parts = flowing.factors(share).terms.slice(first);
      const flows = parts.map((part) => part * Math.exp(-flow));
      const said = Math.exp(-answers);
      return labelled ? { main: 1, terms: [said, ...flows] } : { main: said, terms: flows };
    },
    observe(result, said, batches) {
      flowing.observe?.(result, said, batches);
      answers = learned(answers, labelled ? result.hints[0]! : result.main);
      flow = learned(
        flow,
        result.hints.slice(first).reduce((sum, loss, l) => sum + loss * parts[l]!, 0),
      );
    },
    notes: () => ({ ...flowing.notes?.(), u: [answers, flow] }),
    restore(notes: Notes) {
      flowing.restore?.(notes);
      answers = notes.u?.[0] ?? answers;
      flow = notes.u?.[1] ?? flow;
    },
  };
}
