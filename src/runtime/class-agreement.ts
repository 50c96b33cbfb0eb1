/** Where a changed model answers other than the original: class by class, and the samples on which they differ most. */
import type { Batch } from '../data/dataset.js';
import { throwIfAborted } from '../errors.js';
import type { RunControl } from '../progress.js';
import type { HostTensor, Session } from './engine.js';
import { isProbabilities, logProbabilities, meanKl } from './output-divergence.js';
import { argmax } from './scores.js';

export interface ClassAgreement {
  readonly class: number;
  /** That the original puts into the class. */
  readonly samples: number;
  /** Share of these that the changed model puts there too. */
  readonly agreement: number;
  /** Of the samples with this label, the shares that are right; absent without labels. */
  readonly labelled?: { readonly samples: number; readonly before: number; readonly after: number };
}

export interface Answer {
  readonly class: number;
  readonly probability: number;
}

export interface SampleAnswers {
  /** Place in the dataset. */
  readonly index: number;
  readonly label?: number;
  /** Of the changed model's probabilities from the original's, nats. */
  readonly divergence: number;
  readonly original: Answer;
  readonly changed: Answer;
}

export interface AnswerComparison {
  readonly classes: readonly ClassAgreement[];
  /** The largest divergences first. */
  readonly worst: readonly SampleAnswers[];
}

export interface ComparedModels {
  readonly original: Pick<Session, 'run'>;
  readonly changed: Pick<Session, 'run'>;
  /** Name of the float32 output with one score per class, [samples, classes]. */
  readonly scores: string;
  readonly batches: AsyncIterable<Batch>;
  /** For progress. */
  readonly samples: number;
  /** Samples to keep. */
  readonly worst: number;
}

/** @throws FlowCompressError `aborted` */
export async function compareAnswers(
  { original, changed, scores, batches, samples, worst }: ComparedModels,
  { signal, onProgress }: RunControl = {},
): Promise<AnswerComparison> {
  const tallies: Tally[] = [];
  const tallyOf = (index: number): Tally =>
    (tallies[index] ??= { samples: 0, alike: 0, labelled: 0, rightBefore: 0, rightAfter: 0 });
  let kept: SampleAnswers[] = [];
  let [at, labelled] = [0, true];
  for await (const { feeds, size, labels } of batches) {
    throwIfAborted(signal);
    onProgress?.({ stage: 'compare answers', done: at, total: samples });
    const [a, b] = [(await original.run(feeds, [scores]))[scores]!, (await changed.run(feeds, [scores]))[scores]!];
    labelled &&= labels !== undefined;
    const answers = Array.from({ length: size }, (_, i) => answersOf(a, b, i, at + i, labels?.[i]));
    for (const one of answers) {
      // A NaN is no class.
      if (one.original.class < 0) continue;
      const tally = tallyOf(one.original.class);
      tally.samples++;
      if (one.changed.class === one.original.class) tally.alike++;
    }
    for (const { label, original: was, changed: is } of answers) {
      if (label === undefined) continue;
      const tally = tallyOf(label);
      tally.labelled++;
      if (was.class === label) tally.rightBefore++;
      if (is.class === label) tally.rightAfter++;
    }
    kept = [...kept, ...answers].sort((x, y) => y.divergence - x.divergence || x.index - y.index).slice(0, worst);
    at += size;
  }
  onProgress?.({ stage: 'compare answers', done: samples, total: samples });
  return { classes: tallies.flatMap((tally, index) => rowOf(tally, index, labelled)), worst: kept };
}

interface Tally {
  samples: number;
  alike: number;
  labelled: number;
  rightBefore: number;
  rightAfter: number;
}

function rowOf(
  { samples, alike, labelled, rightBefore, rightAfter }: Tally,
  index: number,
  labels: boolean,
): ClassAgreement[] {
  if (samples + labelled === 0) return [];
  return [
    {
      ...{ class: index, samples, agreement: samples === 0 ? 1 : alike / samples },
      ...(labels &&
        labelled > 0 && {
          labelled: { samples: labelled, before: rightBefore / labelled, after: rightAfter / labelled },
        }),
    },
  ];
}

function answersOf(a: HostTensor, b: HostTensor, row: number, index: number, label: number | undefined): SampleAnswers {
  const [first, second] = [rowIn(a, row), rowIn(b, row)];
  const divergence = meanKl(first, second, isProbabilities(first));
  return {
    ...{ index, ...(label !== undefined && { label }) },
    divergence: Number.isNaN(divergence) ? Infinity : divergence,
    ...{ original: answerOf(first), changed: answerOf(second) },
  };
}

function rowIn({ data, dims }: HostTensor, row: number): HostTensor {
  const classes = dims[1]!;
  return {
    type: 'float32',
    dims: [1, classes],
    data: (data as Float32Array).subarray(row * classes, (row + 1) * classes),
  };
}

function answerOf(row: HostTensor): Answer {
  const answer = argmax(row.data, 0, row.dims[1]!);
  const probability = answer < 0 ? 0 : Math.exp(logProbabilities(row)[answer]!);
  return { class: answer, probability: Math.min(1, probability) };
}
