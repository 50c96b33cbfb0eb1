/** How faithful a student is to its teacher on a split: its answers, and the features that it answers from. */
import type { ModelProto } from 'onnx-buf';
import type { Batch } from '../data/dataset.js';
import { FlowCompressError, throwIfAborted } from '../errors.js';
import { Graph } from '../onnx/graph.js';
import { toBytes } from '../onnx/to-bytes.js';
import type { RunControl } from '../progress.js';
import type { Engine, Session } from '../runtime/engine.js';
import { fixedBatchOf, namedFeeds, pickRows } from '../runtime/rows.js';
import { centred, linearCka, openGramMaker, type Features, type Gram, type GramMaker } from './cka.js';
import { joinFeatures, openFeatureReader, type FeatureReader } from './cka-features.js';
import { compareAnswers, emptyTally, outcomeOf, type Answers, type Outcome } from './fidelity-answers.js';
import { featuresBefore } from './fidelity-features.js';
import { geometryOf, informationKept, type Geometry } from './geometry.js';

/** Samples behind everything about features at most. */
export const MOST_PROBED = 512;
/** Fewer say nothing about features: two points are alike in every space. */
const LEAST_PROBED = 8;

export interface Fidelity extends Outcome {
  readonly split: 'val' | 'test';
  /** Samples behind everything about features. Absent, as is all of it, where a model has no weight layer to look in front of. */
  readonly probed?: number;
  /** Linear CKA of the features in front of the last layers. */
  readonly cka?: number;
  /** R^2 of the teacher's features predicted from the student's (`informationKept`). */
  readonly informationKept?: number;
  readonly geometry?: { readonly teacher: Geometry; readonly student: Geometry };
}

/** A model as it answers. */
export interface AnsweringModel {
  readonly model: ModelProto;
  /** Its output with one score per class, [samples, classes], if it has one. */
  readonly scores?: string;
  /** What the engine compiles, where that is no copy of `model`: the path or the bytes of its file. */
  readonly content?: string | Uint8Array;
  /** What messages call it. */
  readonly name?: string;
}

interface Measured {
  readonly engine: Engine;
  /** A fresh pass over the split; read once. */
  readonly batches: () => AsyncIterable<Batch>;
  readonly split: Fidelity['split'];
  /** Samples that `batches` delivers. Those probed are then spread over all of them; without it they are the first ones. */
  readonly samples?: number;
}

export interface FidelityRequest extends Measured {
  readonly teacher: ModelProto;
  readonly student: ModelProto;
  /** Outputs with one score per class, [samples, classes]: whatever their names are in the two models. */
  readonly scores: { readonly teacher?: string | undefined; readonly student?: string | undefined };
}

/** `measureFidelities` of one student. */
export async function measureFidelity(
  { teacher, student, scores, ...measured }: FidelityRequest,
  control: RunControl = {},
): Promise<Fidelity> {
  const [fidelity] = await measureFidelities(
    {
      ...measured,
      teacher: { model: teacher, name: 'the teacher', ...(scores.teacher !== undefined && { scores: scores.teacher }) },
      students: [
        { model: student, name: 'the student', ...(scores.student !== undefined && { scores: scores.student }) },
      ],
    },
    control,
  );
  return fidelity;
}

/**
 * Feeds the same samples, once and in constant memory, to a teacher and its students.
 * - Answers: with class scores on both sides the KL divergence from the teacher's, agreement, and with labels the agreement where
 *   the teacher is right and the difference in confidence; otherwise the squared error of the float outputs of the same name (or
 *   position) relative to their energy in the teacher.
 * - Features in front of the last weight layer (`featuresBefore`) of up to 512 samples: CKA, geometry and what is kept of them.
 * @returns one per student
 * @throws FlowCompressError `bad-input` when the answers of two models cannot be compared, as those of 10 and of 100 classes, when
 *   they are not numbers, when a label is no class, or when there are no samples; `aborted`; what the engine and the data report
 */
export async function measureFidelities(
  {
    engine,
    teacher,
    students,
    batches,
    split,
    samples,
  }: Measured & { readonly teacher: AnsweringModel; readonly students: readonly AnsweringModel[] },
  { signal, onProgress }: RunControl = {},
): Promise<Fidelity[]> {
  const models: OpenedModel[] = [];
  const report = (done: number): void => onProgress?.({ stage: 'fidelity', done, total: Math.max(samples ?? 0, done) });
  try {
    for (const one of [teacher, ...students]) {
      throwIfAborted(signal);
      models.push(await openAnswering(engine, one));
    }
    const [first, ...others] = models;
    const tallies = others.map(({ name }) => emptyTally(first.name, name));
    const labels: number[] = [];
    let done = 0;
    report(done);
    for await (const batch of batches()) {
      throwIfAborted(signal);
      const reference = await answersOf(first, batch);
      for (const [i, student] of others.entries())
        compareAnswers(tallies[i], reference, await answersOf(student, batch), batch, done);
      const rows = probedRows(done, batch.size, samples);
      if (rows.length > 0) for (const one of models) await readFeatures(one, batch, rows);
      if (batch.labels) for (const row of rows) labels.push(batch.labels[row]);
      done += batch.size;
      report(done);
    }
    if (done === 0)
      throw new FlowCompressError('bad-input', 'There are no samples to compare the models on.', {
        hint: 'Give data with at least one sample.',
      });
    throwIfAborted(signal);
    const inside = await compareFeatures(engine, models, labels);
    return tallies.map((tally, i) => ({ split, ...outcomeOf(tally), ...inside[i] }));
  } finally {
    await Promise.all(models.flatMap(({ session, reader }) => [session.release(), reader?.release()]));
  }
}

interface OpenedModel {
  readonly name: string;
  readonly session: Session;
  readonly scores: string | undefined;
  readonly reader: FeatureReader | undefined;
  /** Rows per run that the reader insists on. */
  readonly fixedBatch: number | undefined;
  /** Emptied, for good, when a batch gives none. */
  features: Features[] | undefined;
}

async function openAnswering(
  engine: Engine,
  { model, scores, content, name = 'the model' }: AnsweringModel,
): Promise<OpenedModel> {
  // Exposing a value can keep the engine from fusing what is around it: answers come from the file as it is.
  const session = await engine.createSession(content ?? toBytes(model));
  try {
    const output = scores ?? new Graph(model).outputs[0]?.name;
    const found = output === undefined ? undefined : featuresBefore(model, output);
    const reader = found && (await openFeatureReader(engine, found.model, [found.value]));
    return { name, session, scores, reader, fixedBatch: fixedBatchOf(session.inputs), features: reader && [] };
  } catch (error) {
    await session.release();
    throw error;
  }
}

async function answersOf({ session, scores }: OpenedModel, { feeds }: Batch): Promise<Answers> {
  const taken = new Set(session.inputs.map(({ name }) => name));
  return { outputs: await session.run(namedFeeds(feeds, taken)), scores };
}

/** Rows of a batch that are probed: with `total` known 512 samples spread evenly, as files are often sorted by class. */
function probedRows(before: number, size: number, total = MOST_PROBED): number[] {
  const most = Math.min(MOST_PROBED, total);
  const upTo = (sample: number): number => Math.min(most, Math.floor((sample * most) / total));
  return Array.from({ length: size }, (_, row) => row).filter((row) => upTo(before + row + 1) > upTo(before + row));
}

async function readFeatures(opened: OpenedModel, batch: Batch, rows: readonly number[]): Promise<void> {
  const { reader, features, fixedBatch } = opened;
  if (!reader || !features) return;
  const wanted = Array.from({ length: fixedBatch ?? rows.length }, (_, i) => rows[i % rows.length]);
  const [found] = await reader.read({ feeds: pickRows(batch.feeds, wanted), size: rows.length });
  if (found && found.width > 0) features.push(found);
  else opened.features = undefined;
}

type InsideFidelity = Pick<Fidelity, 'probed' | 'cka' | 'informationKept' | 'geometry'>;

/** One per student; empty where there is nothing to compare. */
async function compareFeatures(
  engine: Engine,
  models: readonly OpenedModel[],
  labels: readonly number[],
): Promise<InsideFidelity[]> {
  const maker = await openGramMaker(engine);
  try {
    const seen: (Seen | undefined)[] = [];
    for (const { features } of models) seen.push(await see(maker, features ?? [], labels));
    const [teacher, ...students] = seen;
    return students.map((student) => (teacher && student ? compareSeen(teacher, student) : {}));
  } finally {
    await maker.release();
  }
}

/** Undefined for too few samples, or features that are not all numbers. */
async function see(maker: GramMaker, parts: readonly Features[], labels: readonly number[]): Promise<Seen | undefined> {
  const samples = parts.reduce((sum, part) => sum + part.samples, 0);
  if (samples < LEAST_PROBED) return undefined;
  const features = joinFeatures(parts);
  const gram = await maker.of(features);
  if (!gram.values.every(Number.isFinite)) return undefined;
  return { gram, geometry: geometryOf(gram, features.width, labels.length === samples ? labels : undefined) };
}

interface Seen {
  readonly gram: Gram;
  readonly geometry: Geometry;
}

function compareSeen(teacher: Seen, student: Seen): InsideFidelity {
  const kept = informationKept(student.gram, teacher.gram);
  return {
    probed: teacher.gram.size,
    cka: linearCka(centred(teacher.gram), centred(student.gram)),
    ...(kept !== undefined && { informationKept: kept }),
    geometry: { teacher: teacher.geometry, student: student.geometry },
  };
}
