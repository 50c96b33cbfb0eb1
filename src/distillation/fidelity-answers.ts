/** How like a teacher's a student's answers are, added up batch by batch. */
import type { Batch } from '../data/dataset.js';
import { FlowCompressError } from '../errors.js';
import type { HostTensor } from '../runtime/engine.js';
import { checkLabels } from '../runtime/metric.js';
import { isProbabilities, outputDivergence, type DivergenceKind, type Outputs } from '../runtime/output-divergence.js';
import { argmax, isFloat, numbersOf } from '../runtime/scores.js';

export interface Outcome {
  /** Samples behind the answers. */
  readonly samples: number;
  readonly measure: DivergenceKind;
  /** Of the student's answers from the teacher's, mean over the samples: nats, or a ratio of energies. */
  readonly divergence: number;
  /** Cosine of the outputs with the teacher's, mean over samples and outputs; absent for class scores. */
  readonly cosine?: number;
  /** Share of samples with the class that the teacher gives. */
  readonly agreement?: number;
  /** The same among those that the teacher gets right; absent without labels. */
  readonly agreementWhenRight?: number;
  /** 1 - |mean probability of the true class, teacher less student|; absent without labels. */
  readonly confidence?: number;
}

export interface Answers {
  readonly outputs: Outputs;
  readonly scores: string | undefined;
}

export interface AnswerTally {
  readonly teacher: string;
  readonly student: string;
  measure: DivergenceKind;
  samples: number;
  divergence: number;
  /** Sum over samples. */
  cosine: number;
  alike: number;
  /** Samples with labels that the teacher gets right, and those of them where the student agrees. */
  right: number;
  rightAlike: number;
  /** Samples with labels, and sums of the probability of the true class. */
  labelled: number;
  teacherSure: number;
  studentSure: number;
}

/** @param teacher, student what messages call them */
export function emptyTally(teacher: string, student: string): AnswerTally {
  return {
    ...{ teacher, student, measure: 'relative-error', samples: 0, divergence: 0, cosine: 0, alike: 0 },
    ...{ right: 0, rightAlike: 0, labelled: 0, teacherSure: 0, studentSure: 0 },
  };
}

/**
 * Adds a batch to the tally. Probabilities on one side and logits on the other are brought to one form.
 * @param offset samples before the batch, for messages
 * @throws FlowCompressError `bad-input` for answers that cannot be compared or are not numbers, and for labels that are no class
 */
export function compareAnswers(
  tally: AnswerTally,
  teacher: Answers,
  student: Answers,
  batch: Batch,
  offset: number,
): void {
  const { size } = batch;
  const [a, b] = [classScores(teacher, size), classScores(student, size)];
  if (a && b) {
    if (a.dims[1] !== b.dims[1])
      throw cannotCompare(tally, `${tally.teacher} has ${a.dims[1]} classes, ${tally.student} has ${b.dims[1]}`);
    tally.measure = 'kl';
    addDivergence(tally, size, outputDivergence({ scores: a }, { scores: b }, 'scores'));
    addClasses(tally, a, b, batch, offset);
  } else {
    const [reference, changed] = pairedOutputs(tally, teacher.outputs, student.outputs, size);
    const known = Object.values(reference).every(({ data }) => (data as Float32Array).every(Number.isFinite));
    addDivergence(tally, size, known ? outputDivergence(reference, changed, undefined) : NaN);
    const names = Object.keys(reference);
    for (const name of names) tally.cosine += cosines(reference[name]!, changed[name]!) / names.length;
  }
  tally.samples += size;
}

export function outcomeOf(tally: AnswerTally): Outcome {
  const { samples, measure, divergence, cosine, alike, right, rightAlike, labelled, teacherSure, studentSure } = tally;
  return {
    ...{ samples, measure, divergence: divergence / samples },
    ...(measure === 'kl' ? { agreement: alike / samples } : { cosine: Math.min(1, Math.max(-1, cosine / samples)) }),
    ...(right > 0 && { agreementWhenRight: rightAlike / right }),
    ...(labelled > 0 && { confidence: 1 - Math.min(1, Math.abs(teacherSure - studentSure) / labelled) }),
  };
}

/** Sum over rows; 1 for two rows of zeros, 0 for one. */
function cosines(a: HostTensor, b: HostTensor): number {
  const [rows = 1] = a.dims;
  const width = a.data.length / rows;
  let sum = 0;
  for (let n = 0; n < rows; n++) {
    let [dot, own, other] = [0, 0, 0];
    for (let i = n * width; i < (n + 1) * width; i++) {
      const [x, y] = [Number(a.data[i]), Number(b.data[i])];
      dot += x * y;
      own += x * x;
      other += y * y;
    }
    sum += own === 0 && other === 0 ? 1 : dot / Math.sqrt(Math.max(own * other, Number.MIN_VALUE));
  }
  return sum;
}

function addDivergence(tally: AnswerTally, size: number, divergence: number): void {
  if (!Number.isFinite(divergence))
    throw new FlowCompressError(
      'bad-input',
      `The answers of ${tally.student} or of ${tally.teacher} are not all finite numbers.`,
      { node: tally.student, hint: 'Check the preprocessing (--mean, --std, --scale) and both models by themselves.' },
    );
  tally.divergence += divergence * size;
}

function addClasses(tally: AnswerTally, a: HostTensor, b: HostTensor, { size, labels }: Batch, offset: number): void {
  const classes = a.dims[1];
  if (labels) checkLabels(labels, classes, offset, tally.teacher);
  for (let i = 0; i < size; i++) {
    const [mine, own] = [a, b].map(({ data }) => argmax(data, i * classes, classes));
    if (mine === own) tally.alike++;
    if (!labels) continue;
    const label = labels[i];
    if (mine === label) {
      tally.right++;
      if (own === label) tally.rightAlike++;
    }
    tally.labelled++;
    tally.teacherSure += probabilityOf(a, i, label);
    tally.studentSure += probabilityOf(b, i, label);
  }
}

/** softmax(row)_label of logits. */
function probabilityOf({ data, dims: [, classes] }: HostTensor, row: number, label: number): number {
  const logits = (data as Float32Array).subarray(row * classes, (row + 1) * classes);
  const peak = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const sum = logits.reduce((total, v) => total + Math.exp(v - peak), 0);
  return Math.exp(logits[label] - peak) / sum;
}

/** Logits [size, classes]; probabilities give their logarithms, whose softmax they are. */
function classScores({ outputs, scores }: Answers, size: number): HostTensor | undefined {
  const tensor = scores === undefined ? undefined : outputs[scores];
  if (!tensor || !isFloat(tensor) || tensor.dims.length < 2) return undefined;
  const logits = realRows(tensor, size);
  if (!isProbabilities(logits)) return logits;
  const log = Float32Array.from(logits.data as Float32Array, (p) => Math.log(Math.max(p, 1e-12)));
  return { ...logits, data: log };
}

/** Float outputs of the teacher and, under the same names, those of the student: of that name, else in that position. */
function pairedOutputs(tally: AnswerTally, teacher: Outputs, student: Outputs, size: number): [Outputs, Outputs] {
  const [reference, changed]: [Record<string, HostTensor>, Record<string, HostTensor>] = [{}, {}];
  const others = Object.values(student);
  for (const [position, [name, tensor]] of Object.entries(teacher).entries()) {
    const other = name in student ? student[name] : others.at(position);
    if (!isFloat(tensor) || !other || !isFloat(other) || tensor.dims.join() !== other.dims.join()) continue;
    reference[name] = realRows(tensor, size);
    changed[name] = realRows(other, size);
  }
  if (Object.keys(reference).length === 0) {
    const shown = (outputs: Outputs): string =>
      Object.entries(outputs)
        .map(([name, { type, dims }]) => `${name} ${type} [${dims.join(', ')}]`)
        .join(', ');
    throw cannotCompare(tally, `${tally.teacher} gives ${shown(teacher)}; ${tally.student} gives ${shown(student)}`);
  }
  return [reference, changed];
}

/** As float32, without the rows that only fill a batch up. */
function realRows(tensor: HostTensor, size: number): HostTensor {
  const [rows = 1, ...rest] = tensor.dims;
  const kept = Math.min(rows, size);
  const data = Float32Array.from(numbersOf(tensor) as Float32Array);
  return { type: 'float32', dims: [kept, ...rest], data: data.subarray(0, (data.length / Math.max(rows, 1)) * kept) };
}

function cannotCompare(tally: AnswerTally, why: string): FlowCompressError {
  return new FlowCompressError('bad-input', `Their answers cannot be compared: ${why}.`, {
    node: tally.student,
    hint: 'Give a teacher and a student for the same task, with the same classes.',
  });
}
