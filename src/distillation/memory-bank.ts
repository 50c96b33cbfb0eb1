/**
 * CRD (Tian et al. 2020) with its memory bank: projected features of every sample of TRAIN, of both networks, are remembered on the
 * host; a sample is told apart from some thousands of others by what the bank knows of them.
 */
import { randomStream, seedOf } from '../data/random.js';
import { FlowCompressError } from '../errors.js';
import type { Value } from '../onnx/graph.js';
import { DataType } from '../onnx/dtypes.js';
import { BEHIND_END, formula, reduce, slice, transpose } from '../onnx/ops.js';
import { tensorInfo } from '../onnx/value-info.js';
import type { HostTensor } from '../runtime/engine.js';
import type { Loss } from '../training/losses.js';
import { CONTRAST, CONTRAST_TEMPERATURE, CONTRAST_WIDTH, featuresOf, withAnswers } from './baselines.js';
import type { Lesson, LessonRequest, TaughtBatch, Term } from './lesson.js';
import { unitRows } from './losses.js';

/** N: samples that one is told apart from, fewer where TRAIN has not as many beside the batch. */
const NEGATIVES = 4096;
/** Share of the old in what the bank knows of a sample once it was seen again. */
const MEMORY = 0.5;
/** Bytes of both banks. */
const ROOM = 2e9;

/** Features in front of the last layers, each network's against what the bank knows of the other's. */
export function contrastiveWithBank(request: LessonRequest): Lesson {
  const { own, theirs } = featuresOf(request);
  const { samples, batchSize, seed } = request;
  const negatives = Math.min(NEGATIVES, samples - batchSize);
  if (negatives < 1)
    throw new FlowCompressError('unsupported', 'TRAIN has no samples beside those of a batch to be told apart from.', {
      hint: 'Lower --batch-size, or use --method crd-lite.',
    });
  if (2 * 4 * samples * CONTRAST_WIDTH > ROOM)
    throw new FlowCompressError(
      'unsupported',
      `A memory bank of ${String(samples)} samples would not fit into memory.`,
      {
        hint: 'Use --method crd-lite, which contrasts the samples of a batch.',
      },
    );
  const banks = ['student', 'teacher'].map((_, i) => openBank(samples, CONTRAST_WIDTH, seedOf(seed, i, 911)));
  const [ofStudent, ofTeacher] = banks as [MemoryBank, MemoryBank];
  const draws = negativeDraws(samples, negatives, seed);
  const projected: string[] = [];
  let input = '';
  const lesson = withAnswers(request, (student, teacher, learn) => {
    input = student.uniqueName('teacher features');
    const given = student.addInput(tensorInfo(input, DataType.FLOAT, ['N', theirs.size]));
    const answer = teacher.insertOp('Identity', [teacher.mustGet(theirs.value)]).name;
    const term = (x: Value, size: number, name: string, other: MemoryBank): Term => {
      const matrix = learn(`${name} projection`, [size, CONTRAST_WIDTH], size);
      const value = unitRows(student, student.insertOp('MatMul', [x, matrix]));
      projected.push(value.name);
      return {
        ...{ name: 'contrast', answer, kept: true },
        prepare: (_, { indices }: TaughtBatch) => other.targets(indices, draws.of(indices)),
        hint: {
          value: value.name,
          loss: bankContrast(batchSize),
          targetDims: [batchSize + negatives + 1, CONTRAST_WIDTH],
        },
      };
    };
    return {
      terms: [
        term(student.mustGet(own.value), own.size, 'student', ofTeacher),
        term(given, theirs.size, 'teacher', ofStudent),
      ],
      factors: [CONTRAST, CONTRAST],
    };
  });
  const heard = [{ answer: lesson.terms.at(-1)!.answer!, input: { name: input, size: theirs.size } }];
  return {
    ...lesson,
    ...{ heard, observed: projected },
    control: {
      ...lesson.control,
      observe({ observed }, _, batches) {
        for (const [i, { indices }] of batches.entries()) {
          const [student, teacher] = observed[i]!.map(({ data }) => data as Float32Array) as [
            Float32Array,
            Float32Array,
          ];
          const others = draws.of(indices);
          ofTeacher.settle(student, indices, others);
          ofStudent.settle(teacher, indices, others);
          ofStudent.update(student, indices);
          ofTeacher.update(teacher, indices);
        }
        draws.next();
      },
      notes: () => ({
        ...{ 'student bank': ofStudent.rows, 'teacher bank': ofTeacher.rows, draws: [draws.done] },
        levels: banks.map(({ level }) => level),
      }),
      restore(notes) {
        for (const [i, name] of ['student bank', 'teacher bank'].entries()) {
          const rows = notes[name];
          if (rows) banks[i]!.rows.set(rows);
          banks[i]!.level = notes.levels?.[i] ?? banks[i]!.level;
        }
        draws.done = notes.draws?.[0] ?? draws.done;
      },
    },
  };
}

export interface MemoryBank {
  /** Row-major [samples, width], each of norm 1. */
  readonly rows: Float32Array;
  /** Mean of e^(u . v / t) over unrelated pairs: expected until the first batch is seen, then measured on that. */
  level: number;
  /** Rows of the batch, rows of the others, and a last row of ln(N level): [batch + others + 1, width]. */
  targets(batch: ArrayLike<number>, others: Int32Array): HostTensor;
  /** Measures `level`, the first time. @param values row-major [batch, width] */
  settle(values: Float32Array, batch: ArrayLike<number>, others: Int32Array): void;
  /** v <- unit(v / 2 + value / 2) of the batch. */
  update(values: Float32Array, batch: ArrayLike<number>): void;
}

/** Random directions at first. */
export function openBank(samples: number, width: number, seed: number): MemoryBank {
  const random = randomStream(seed);
  const rows = Float32Array.from({ length: samples * width }, () => random.normal());
  for (let n = 0; n < samples; n++) toUnit(rows.subarray(n * width, (n + 1) * width));
  // The cosine of independent directions has variance 1 / width.
  const expected = Math.exp(1 / (2 * width * CONTRAST_TEMPERATURE ** 2));
  const row = (n: number): Float32Array => rows.subarray(n * width, (n + 1) * width);
  const bank: MemoryBank = {
    rows,
    level: expected,
    targets(batch, others) {
      const data = new Float32Array((batch.length + others.length + 1) * width);
      for (let n = 0; n < batch.length; n++) data.set(row(batch[n]!), n * width);
      for (const [n, other] of others.entries()) data.set(row(other), (batch.length + n) * width);
      data.fill(Math.log(others.length * bank.level), (batch.length + others.length) * width);
      return { type: 'float32', dims: [batch.length + others.length + 1, width], data };
    },
    settle(values, batch, others) {
      if (bank.level !== expected) return;
      let sum = 0;
      for (let n = 0; n < batch.length; n++)
        for (const other of others) {
          let dot = 0;
          for (let k = 0; k < width; k++) dot += values[n * width + k]! * rows[other * width + k]!;
          sum += Math.exp(dot / CONTRAST_TEMPERATURE);
        }
      bank.level = sum / (batch.length * others.length);
    },
    update(values, batch) {
      for (let n = 0; n < batch.length; n++) {
        const own = row(batch[n]!);
        for (let k = 0; k < width; k++) own[k] = MEMORY * own[k]! + (1 - MEMORY) * values[n * width + k]!;
        toUnit(own);
      }
    },
  };
  return bank;
}

function toUnit(row: Float32Array): void {
  let squares = 0;
  for (const v of row) squares += v * v;
  const norm = Math.sqrt(squares + 1e-12);
  for (let k = 0; k < row.length; k++) row[k]! /= norm;
}

/** The same others for every sample of a batch, with replacement, none of them in the batch. */
export function negativeDraws(
  samples: number,
  count: number,
  seed: number,
): { done: number; of(batch: ArrayLike<number>): Int32Array; next(): void } {
  return {
    done: 0,
    of(batch) {
      const random = randomStream(seedOf(seed, this.done, 313));
      const own = new Set(Array.from(batch));
      return Int32Array.from({ length: count }, () => {
        let other = random.int(samples);
        while (own.has(other)) other = random.int(samples);
        return other;
      });
    },
    next() {
      this.done++;
    },
  };
}

/**
 * -ln h(positive) - sum ln(1 - h(negative)), h = e^(u . v / t) / (e^(u . v / t) + N level): the published N / M, with the sum over all
 * samples by which its code divides the powers. Outputs of norm 1, [B, K]; targets as `MemoryBank.targets`, [B + N + 1, K].
 */
export function bankContrast(batch: number): Loss {
  return ({ graph, output, target }) => {
    const calc = formula(graph);
    const rows = (from: number, to: number): Value => slice(graph, target, [0], [from], [to], [1]);
    const level = reduce(graph, 'ReduceMean', rows(-1, BEHIND_END));
    const cooled = (dots: Value): Value => calc('Div', dots, CONTRAST_TEMPERATURE);
    const positive = cooled(reduce(graph, 'ReduceSum', calc('Mul', output, rows(0, batch)), [1]));
    const negative = cooled(graph.insertOp('MatMul', [output, transpose(graph, rows(batch, -1), [1, 0])]));
    const missed = calc('Softplus', calc('Sub', level, positive));
    const confused = reduce(graph, 'ReduceSum', calc('Softplus', calc('Sub', negative, level)), [1]);
    return calc('Add', missed, confused);
  };
}
