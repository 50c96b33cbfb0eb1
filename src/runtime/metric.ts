/** The quality of compiled models over a dataset: accuracy where there are labels, likeness to the original elsewhere. */
import type { Batch } from '../data/dataset.js';
import { FlowCompressError, throwIfAborted } from '../errors.js';
import type { RunControl } from '../progress.js';
import type { Session } from './engine.js';
import { countClasses, f1Macro, f1OfClass, type ClassCounts } from './f1.js';
import {
  addSignal,
  argmax,
  decibels,
  headOf,
  isFloat,
  numbersOf,
  rankOf,
  type Head,
  type NamedTensor,
  type Numbers,
  type SignalTally,
} from './scores.js';

/** A compiled model under a name for messages. */
export interface Subject {
  readonly name: string;
  readonly session: Pick<Session, 'outputs' | 'run'>;
}

/** Metrics that compare predicted classes with labels. */
export const LABEL_METRICS = ['top1', 'top5', 'f1-macro', 'f1-binary'] as const;
export type LabelMetric = (typeof LABEL_METRICS)[number];

/** A label metric, `agreement` (fractions) or `sqnrDb` (decibels); higher is better. */
export interface MetricValue {
  readonly name: LabelMetric | 'agreement' | 'sqnrDb';
  readonly value: number;
  /** Samples behind the value. */
  readonly samples: number;
}

export interface Evaluation {
  /** The main figure; absent for the reference where there are no labels to hold it against. */
  readonly metric?: MetricValue;
  /** Further figures. */
  readonly metrics: readonly MetricValue[];
}

export interface EvaluationOptions extends RunControl {
  /** Samples that the batches deliver, for progress events. */
  readonly total?: number;
  readonly stage?: string;
  /** The main figure where there are labels. Default `top1`, which stands beside others too. */
  readonly main?: LabelMetric;
}

/** Classes from which top-5 is worth telling. */
const TOP5_CLASSES = 20;

/** Scores of one sigmoid output (0..1) are cut at 0.5, logits at 0; which of them it is shows only at the end. */
const THRESHOLDS = [0.5, 0];

/** What is counted for one subject. Lists have one entry per threshold (one altogether unless the head is binary). */
interface Tally {
  readonly head: Head;
  correct: number[];
  agreeing: number[];
  top5: number;
  counts: ClassCounts[];
  /** Samples whose scores hold NaN. */
  nan: number;
  low: number;
  high: number;
  /** Per output of the reference, by its name. */
  signal: Map<string, SignalTally>;
  /** Elements that could not be compared. */
  skipped: number;
}

/**
 * Runs every subject on every batch, in constant memory, and counts
 * - with labels and class scores [samples, classes] (or [samples, 1], a score of class 1, or the class as an integer; see
 *   `headOf`): `top1`, from 20 classes on also `top5`, and beside them the `agreement` of each further subject with the first one;
 * - without labels: `agreement` on the top class for [samples, classes], and `sqnrDb`;
 * - for all other outputs: `sqnrDb` of the subject's float outputs against those of the first subject, the lowest of them.
 * Samples with NaN scores count as wrong and are told in `warnings`.
 * @param subjects the first one is the reference
 * @throws FlowCompressError `bad-input` when a label is outside the model's classes, when outputs of two subjects cannot be
 *   compared, or when the reference gives nothing but NaN; `aborted`; what the sessions and the batches throw
 */
export async function evaluateSessions(
  subjects: readonly Subject[],
  batches: AsyncIterable<Batch>,
  options: EvaluationOptions = {},
): Promise<{ evaluations: Evaluation[]; samples: number; warnings: string[] }> {
  const { signal, onProgress, total = 0, stage = 'evaluate' } = options;
  const tallies: Tally[] = [];
  let samples = 0;
  let labelled = false;
  let largest = 0;
  onProgress?.({ stage, done: 0, total });
  for await (const batch of batches) {
    const rows = rowsOf(batch);
    let reference: readonly NamedTensor[] = [];
    let first: Predictions | undefined;
    for (const [i, subject] of subjects.entries()) {
      throwIfAborted(signal);
      const outputs = await runSubject(subject, batch);
      const tally = (tallies[i] ??= newTally(headOf(outputs, batch.feeds, batch.labels !== undefined)));
      const { head } = tally;
      const scores = head.kind === 'other' ? undefined : numbersOf(outputs[head.output].tensor);
      const predictions = scores && predict(tally, scores, batch);
      if (batch.labels && predictions) {
        scoreLabels(tally, predictions, batch.labels, samples, subject.name);
        if (head.kind === 'classes') tally.top5 += inTopFive(scores, batch.labels, predictions[0], head.classes);
      }
      if (i === 0) {
        reference = outputs;
        first = predictions;
        continue;
      }
      if (first && predictions) addAgreement(tally, first, predictions);
      if (!batch.labels || tally.head.kind === 'other') {
        compareOutputs(tally, subject, reference, outputs, batch.size / rows);
      }
    }
    labelled = batch.labels !== undefined;
    for (const label of batch.labels ?? []) largest = Math.max(largest, label);
    samples += batch.size;
    onProgress?.({ stage, done: samples, total: Math.max(total, samples) });
  }
  if (samples === 0) {
    throw new FlowCompressError('bad-input', 'There are no samples to evaluate on.', {
      hint: 'Give data with at least one sample.',
    });
  }
  const warnings: string[] = [];
  const [{ head }] = tallies;
  if (labelled && head.kind === 'other') {
    warnings.push('The labels were not used: no output of the model is recognised as scores [samples, classes].');
  }
  if (labelled && head.kind === 'classes' && 2 * (largest + 1) < head.classes) {
    warnings.push(
      `The labels go up to ${largest} only, the model has ${head.classes} outputs: check that these are classes.`,
    );
  }
  const threshold = tallies.some((tally) => tally.low < 0 || tally.high > 1) ? 1 : 0;
  const evaluations = subjects.map((subject, i) =>
    conclude(tallies[i], {
      ...{ subject: subject.name, samples, labelled, isReference: i === 0, threshold, warnings },
      main: options.main ?? 'top1',
    }),
  );
  return { evaluations, samples, warnings };
}

/** Evaluates one session, against `reference` where one is given; see {@link evaluateSessions}. */
export async function evaluateSession(
  session: Subject['session'],
  batches: AsyncIterable<Batch>,
  options: EvaluationOptions & { readonly reference?: Subject['session'] } = {},
): Promise<Evaluation & { readonly warnings: readonly string[] }> {
  const subject = { name: 'the model', session };
  const { reference } = options;
  const subjects = reference ? [{ name: 'the original', session: reference }, subject] : [subject];
  const { evaluations, warnings } = await evaluateSessions(subjects, batches, options);
  return { ...evaluations[subjects.length - 1], warnings };
}

/** Class per sample and threshold; -1 where the scores are NaN. */
type Predictions = Int32Array[];

function newTally(head: Head): Tally {
  const zeros = head.kind === 'binary' ? THRESHOLDS.map(() => 0) : [0];
  return {
    head,
    correct: zeros,
    agreeing: [...zeros],
    top5: 0,
    counts: zeros.map(() => new Map()),
    nan: 0,
    low: Infinity,
    high: -Infinity,
    signal: new Map(),
    skipped: 0,
  };
}

/** Rows in the tensors, padding included. */
function rowsOf(batch: Batch): number {
  const [tensor] = Object.values(batch.feeds);
  return Math.max(batch.size, tensor?.dims[0] ?? 0);
}

async function runSubject({ session }: Subject, batch: Batch): Promise<NamedTensor[]> {
  const results = await session.run(batch.feeds);
  return session.outputs.flatMap(({ name }) => (results[name] ? { name, tensor: results[name] } : []));
}

function predict(tally: Tally, scores: Numbers, { size }: Batch): Predictions {
  const { head } = tally;
  if (head.kind === 'index') return [Int32Array.from({ length: size }, (_, i) => Number(scores[i]))];
  if (head.kind === 'classes') {
    const classes = Int32Array.from({ length: size }, (_, i) => argmax(scores, i * head.classes, head.classes));
    for (const each of classes) if (each < 0) tally.nan++;
    return [classes];
  }
  const predictions = THRESHOLDS.map(() => new Int32Array(size));
  for (let i = 0; i < size; i++) {
    const score = Number(scores[i]);
    if (Number.isNaN(score)) tally.nan++;
    tally.low = Math.min(tally.low, score);
    tally.high = Math.max(tally.high, score);
    predictions.forEach((classes, t) => {
      classes[i] = Number.isNaN(score) ? -1 : Number(score > THRESHOLDS[t]);
    });
  }
  return predictions;
}

function scoreLabels(
  tally: Tally,
  predictions: Predictions,
  labels: Int32Array,
  offset: number,
  subject: string,
): void {
  const { head } = tally;
  if (head.kind === 'classes' || head.kind === 'binary') {
    checkLabels(labels, head.kind === 'binary' ? 2 : head.classes, offset, subject);
  }
  predictions.forEach((classes, t) => {
    for (let i = 0; i < classes.length; i++) if (classes[i] === labels[i]) tally.correct[t]++;
    countClasses(tally.counts[t], classes, labels);
  });
}

/** Samples whose label is among the five best scores; none where a score is NaN. */
function inTopFive(scores: Numbers, labels: Int32Array, predicted: Int32Array, classes: number): number {
  let found = 0;
  labels.forEach((label, i) => {
    if (predicted[i] >= 0 && rankOf(scores, i * classes, classes, label) < 5) found++;
  });
  return found;
}

/**
 * @param offset number of the first label's sample, for the message
 * @param source where the labels are from, for the message
 * @throws FlowCompressError `bad-input` naming the first sample whose label is not a class of the model
 */
export function checkLabels(labels: Int32Array, classes: number, offset: number, model: string, source?: string): void {
  const at = labels.findIndex((label) => label < 0 || label >= classes);
  if (at < 0) return;
  throw new FlowCompressError(
    'bad-input',
    `The label ${labels[at]} of sample ${offset + at}${source === undefined ? '' : ` in ${source}`} is not one of the ${classes} classes (0 to ${classes - 1}) of ${model}.`,
    {
      node: source,
      hint: 'Check that the data belongs to the model and that its classes are numbered from 0 in the order of the outputs.',
    },
  );
}

function addAgreement(tally: Tally, reference: Predictions, own: Predictions): void {
  own.forEach((classes, t) => {
    const expected = reference[t] ?? reference[0];
    for (let i = 0; i < classes.length; i++) if (classes[i] === expected[i] && classes[i] >= 0) tally.agreeing[t]++;
  });
}

/** Adds the float outputs to the tallies. @param share part of the rows that are samples and not padding */
function compareOutputs(
  tally: Tally,
  subject: Subject,
  reference: readonly NamedTensor[],
  outputs: readonly NamedTensor[],
  share: number,
): void {
  for (const [i, expected] of reference.entries()) {
    if (!isFloat(expected.tensor)) continue;
    const own = outputs.find((output) => output.name === expected.name) ?? outputs[i];
    const fits = own && isFloat(own.tensor) && sameDims(own.tensor.dims, expected.tensor.dims);
    if (!fits) {
      const shown = own ? `${own.tensor.type} [${own.tensor.dims.join(', ')}]` : 'no such output';
      throw new FlowCompressError(
        'bad-input',
        `Output ${expected.name} cannot be compared: the first model gives [${expected.tensor.dims.join(', ')}], ${subject.name} gives ${shown}.`,
        { node: expected.name, hint: 'Compare models that have the same outputs.' },
      );
    }
    const entry = tally.signal.get(expected.name) ?? { signal: 0, noise: 0 };
    tally.signal.set(expected.name, entry);
    const count = Math.round(expected.tensor.data.length * share);
    tally.skipped += addSignal(entry, numbersOf(expected.tensor), numbersOf(own.tensor), count);
  }
}

function sameDims(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((dim, axis) => dim === b[axis]);
}

interface Conclusion {
  readonly subject: string;
  readonly samples: number;
  readonly labelled: boolean;
  readonly isReference: boolean;
  /** Index into THRESHOLDS. */
  readonly threshold: number;
  readonly main: LabelMetric;
  readonly warnings: string[];
}

function conclude(tally: Tally, about: Conclusion): Evaluation {
  const { samples, labelled, isReference, warnings, subject } = about;
  if (tally.nan === samples && isReference) {
    throw new FlowCompressError('bad-input', `Every output of ${subject} is NaN.`, {
      node: subject,
      hint: 'Check the preprocessing (--mean, --std, --scale) and that the model itself works in ONNX Runtime.',
    });
  }
  if (tally.nan > 0) {
    warnings.push(`${subject} gives NaN for ${tally.nan} of ${samples} samples; they count as wrong.`);
  }
  if (tally.skipped > 0) {
    warnings.push(
      `${tally.skipped} output values of ${subject} or of the first model are not finite; they were left out.`,
    );
  }
  const threshold = tally.head.kind === 'binary' ? about.threshold : 0;
  const values: MetricValue[] = [];
  const add = (name: MetricValue['name'], value: number): number => values.push({ name, value, samples });
  const judged = tally.head.kind !== 'other';
  if (labelled && judged) {
    const named: Record<LabelMetric, number> = {
      top1: tally.correct[threshold] / samples,
      top5: tally.top5 / samples,
      'f1-macro': f1Macro(tally.counts[threshold]),
      'f1-binary': f1OfClass(tally.counts[threshold], 1),
    };
    const many = tally.head.kind === 'classes' && tally.head.classes >= TOP5_CLASSES;
    const shown: LabelMetric[] = [about.main, 'top1', ...(many ? (['top5'] as const) : [])];
    for (const name of new Set(shown)) add(name, named[name]);
  }
  if (!isReference) {
    // Without labels one score per sample may as well be a regression: a threshold would mean nothing.
    if (judged && (labelled || tally.head.kind !== 'binary')) add('agreement', tally.agreeing[threshold] / samples);
    const levels = [...tally.signal.values()].flatMap((entry) => decibels(entry) ?? []);
    if (levels.length > 0) add('sqnrDb', Math.min(...levels));
    if (values.length === 0) warnings.push(`${subject} has no outputs that a figure could be made from.`);
  }
  const [metric, ...metrics] = values;
  return metric ? { metric, metrics } : { metrics };
}
