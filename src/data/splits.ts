/** Seeded, disjoint TRAIN, VAL, CALIB and TEST splits. Algorithms get the first three; TEST is sealed for the report. */
import { FlowCompressError } from '../errors.js';
import type { Dataset, OpenedData } from './dataset.js';
import { randomStream, shuffled } from './random.js';
import { sealTest, type SealedTest } from './sealed-test.js';
import { subset } from './subset.js';

/** What algorithms may read. The three never hold a TEST sample; CALIB is a part of TRAIN, TRAIN and VAL are disjoint. */
export interface WorkingSplits {
  readonly train: Dataset;
  readonly val: Dataset;
  readonly calib: Dataset;
}

export interface Splits {
  readonly working: WorkingSplits;
  readonly test: SealedTest;
}

export interface SplitOptions {
  /** Same seed and data, same splits. Default 0. */
  readonly seed?: number;
  /** Samples in CALIB, at most all of TRAIN. Default 512. */
  readonly calibSamples?: number;
  /** A second source for TEST (`--test`); its `test` part if it has one, otherwise all of it. */
  readonly testData?: OpenedData;
}

/**
 * Splits opened data.
 * - one undivided dataset: 80/10/10 TRAIN/VAL/TEST, or 90/10 TRAIN/VAL when `testData` is given;
 * - splits made by the author of the data are kept. Without `val`, a tenth of `train` is VAL. Without `test` (and `testData`),
 *   half of `val` is TEST, or with only `train` the split is as for one undivided dataset.
 * Divisions are stratified by label where there are labels.
 * @throws FlowCompressError `bad-input` when there are too few samples for every split to hold at least one
 */
export function makeSplits(data: OpenedData, options: SplitOptions = {}): Splits {
  const { seed = 0, calibSamples = 512, testData } = options;
  if (!Number.isSafeInteger(calibSamples) || calibSamples < 1) {
    throw new FlowCompressError(
      'bad-input',
      `The number of calibration samples must be a whole number above 0, found ${calibSamples}.`,
    );
  }
  const { train, val, test } = divide(data, testData, seed);
  const calib = takePart(train, calibSamples, seed + 1, 'CALIB');
  return { working: Object.freeze({ train, val, calib }), test: sealTest(test) };
}

interface Divided {
  readonly train: Dataset;
  readonly val: Dataset;
  readonly test: Dataset;
}

function divide(data: OpenedData, testData: OpenedData | undefined, seed: number): Divided {
  const outer = testData ? (testData.test ?? testData.all ?? testData.val ?? testData.train) : data.test;
  const base = data.all ?? data.train ?? data.val ?? data.test;
  if (base === undefined || (testData && outer === undefined)) {
    throw new FlowCompressError('internal', 'The opened data holds no dataset.');
  }
  if (testData && outer && [data.all, data.train, data.val].some((part) => part?.source === outer.source)) {
    throw new FlowCompressError(
      'bad-input',
      `${outer.source} is given for both training and test: the test would measure nothing.`,
      {
        node: outer.source,
        hint: 'Give a different --test, or leave it out: a tenth of --data is then kept apart for it.',
      },
    );
  }
  if (data.train && data.val) {
    const { train } = data;
    if (outer) return { train: whole(train, 'TRAIN'), val: whole(data.val, 'VAL'), test: outer };
    const [val, test] = split(
      data.val,
      [
        ['VAL', 0.5],
        ['TEST', 0.5],
      ],
      seed,
    );
    return { train: whole(train, 'TRAIN'), val, test };
  }
  if (outer && outer !== base) {
    const [val, train] = split(
      base,
      [
        ['VAL', 0.1],
        ['TRAIN', 0.9],
      ],
      seed,
    );
    return { train, val, test: outer };
  }
  const [test, val, train] = split(
    base,
    [
      ['TEST', 0.1],
      ['VAL', 0.1],
      ['TRAIN', 0.8],
    ],
    seed,
  );
  return { train, val, test };
}

const label = (base: Dataset, name: string): string => `${base.source} (${name})`;

function whole(base: Dataset, name: string): Dataset {
  return subset(
    base,
    Int32Array.from({ length: base.size }, (_, i) => i),
    label(base, name),
  );
}

/** Disjoint parts that together are the whole; the last part takes what rounding leaves. Every part holds at least one sample. */
function split(base: Dataset, parts: readonly (readonly [name: string, share: number])[], seed: number): Dataset[] {
  if (base.size < parts.length) {
    throw new FlowCompressError(
      'bad-input',
      `${base.source} has ${base.size} sample${base.size === 1 ? '' : 's'}, too few for ${parts.map(([name]) => name).join(', ')}.`,
      {
        node: base.source,
        hint: 'Give more samples, or a separate --test.',
      },
    );
  }
  const order = stratifiedOrder(base, seed);
  let from = 0;
  return parts.map(([name, share], i) => {
    const last = i === parts.length - 1;
    const end = last ? base.size : from + Math.max(1, Math.round(base.size * share));
    const rows = order.slice(from, end).sort();
    from = end;
    return subset(base, rows, label(base, name));
  });
}

/** A seeded part of `count` samples, stratified by label. */
function takePart(base: Dataset, count: number, seed: number, name: string): Dataset {
  return subset(
    base,
    stratifiedOrder(base, seed).slice(0, count).sort(),
    `${base.source.replace(/ \(\w+\)$/, '')} (${name})`,
  );
}

/**
 * A seeded order of all samples in which every run of consecutive samples holds each class in about its overall share: the
 * i-th sample of a class of n gets the position (i + u) / n, with one random u in [0, 1) per class.
 */
function stratifiedOrder({ size, labels }: Dataset, seed: number): Int32Array {
  const order = shuffled(size, seed);
  if (!labels) return order;
  const totals = new Map<number, number>();
  for (const each of labels) totals.set(each, (totals.get(each) ?? 0) + 1);
  const random = randomStream(seed);
  const offsets = new Map([...totals.keys()].sort((a, b) => a - b).map((each) => [each, random.float()]));
  const seen = new Map<number, number>();
  const position = new Float64Array(size);
  for (const row of order) {
    const each = labels[row];
    const count = seen.get(each) ?? 0;
    seen.set(each, count + 1);
    position[row] = (count + offsets.get(each)!) / totals.get(each)!;
  }
  return order.sort((a, b) => position[a] - position[b]);
}
