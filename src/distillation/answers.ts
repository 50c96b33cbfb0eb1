/** What the teacher says of samples: once for every sample and change of it, where there is room to keep it. */
import type { ModelProto } from 'onnx-buf';
import { FlowCompressError } from '../errors.js';
import { rewrite } from '../onnx/graph.js';
import { toBytes } from '../onnx/to-bytes.js';
import type { Engine, HostTensor } from '../runtime/engine.js';
import { namedFeeds } from '../runtime/rows.js';
import { exposeOnly } from '../runtime/trace.js';
import type { FedBatch } from '../training/trainer.js';

/** Keeps rows of numbers by round and sample. */
export interface AnswerStore {
  /** Row-major [indices.length, width] into `rows`; false when one of them is not there. */
  read(round: number, indices: ArrayLike<number>, rows: Float32Array): Promise<boolean>;
  write(round: number, indices: ArrayLike<number>, rows: Float32Array): Promise<void>;
}

export interface Answers {
  /** One value per name, for the samples of the batch; nothing is kept of rounds below 0. */
  of(fed: FedBatch): Promise<readonly HostTensor[]>;
  /** Batches that the teacher was asked about. */
  readonly asked: number;
  release(): Promise<void>;
}

/**
 * @param names of the teacher's values
 * @param openStore room for rows of so many numbers; undefined where nothing is kept
 */
export async function openAnswers(
  engine: Engine,
  teacher: ModelProto,
  names: readonly string[],
  openStore?: (width: number) => Promise<AnswerStore | undefined>,
): Promise<Answers> {
  // A method without a teacher has nothing to ask it, and no engine compiles a model without outputs.
  if (names.length === 0) return { of: () => Promise.resolve([]), asked: 0, release: () => Promise.resolve() };
  const distinct = [...new Set(names)];
  const alone = rewrite(teacher, (graph) => {
    exposeOnly(
      graph,
      distinct.map((name) => graph.mustGet(name)),
    );
  });
  const session = await engine.createSession(toBytes(alone));
  const taken = new Set(session.inputs.map(({ name }) => name));
  let store: AnswerStore | undefined;
  let shapes: (readonly number[])[] | undefined;
  let asked = 0;
  let last: { readonly fed: FedBatch; readonly values: readonly HostTensor[] } | undefined;
  const answer = async ({ feeds, indices, round }: FedBatch): Promise<readonly HostTensor[]> => {
    const keeping = round >= 0 ? store : undefined;
    if (keeping && shapes) {
      const rows = new Float32Array(indices.length * widthOf(shapes));
      if (await keeping.read(round, indices, rows)) return unpacked(rows, shapes, indices.length);
    }
    asked++;
    const results = await session.run(namedFeeds(feeds, taken));
    const values = distinct.map((name) => results[name]!);
    const shared = distinct.find((_, i) => values[i]!.dims[0] !== indices.length);
    if (shared !== undefined)
      throw new FlowCompressError('internal', `The teacher's ${shared} has no row for every sample.`);
    if (!shapes) {
      shapes = values.map(({ dims }) => dims.slice(1));
      store = await openStore?.(widthOf(shapes));
    }
    if (round >= 0) await store?.write(round, indices, packed(values, indices.length));
    return values;
  };
  return {
    get asked() {
      return asked;
    },
    async of(fed) {
      if (last?.fed !== fed) {
        const values = await answer(fed);
        last = { fed, values: names.map((name) => values[distinct.indexOf(name)]!) };
      }
      return last.values;
    },
    release: () => session.release(),
  };
}

const product = (dims: readonly number[]): number => dims.reduce((a, b) => a * b, 1);
const widthOf = (shapes: readonly (readonly number[])[]): number =>
  shapes.reduce((sum, dims) => sum + product(dims), 0);

/** Sample by sample, value by value. */
function packed(values: readonly HostTensor[], samples: number): Float32Array {
  const widths = values.map(({ data }) => data.length / samples);
  const rows = new Float32Array(samples * widths.reduce((a, b) => a + b, 0));
  let at = 0;
  for (let n = 0; n < samples; n++)
    for (const [i, { data }] of values.entries()) {
      rows.set((data as Float32Array).subarray(n * widths[i]!, (n + 1) * widths[i]!), at);
      at += widths[i]!;
    }
  return rows;
}

function unpacked(rows: Float32Array, shapes: readonly (readonly number[])[], samples: number): HostTensor[] {
  const values = shapes.map((dims): HostTensor & { data: Float32Array } => ({
    ...{ type: 'float32', dims: [samples, ...dims] },
    data: new Float32Array(samples * product(dims)),
  }));
  let at = 0;
  for (let n = 0; n < samples; n++)
    for (const { data } of values) {
      const width = data.length / samples;
      data.set(rows.subarray(at, at + width), n * width);
      at += width;
    }
  return values;
}

/** Bytes that are kept in memory. */
const MEMORY = 256e6;

/** Rows in memory; undefined where they would take too much of it. */
export function answersInMemory(rounds: number, samples: number, width: number): AnswerStore | undefined {
  if (4 * rounds * samples * width > MEMORY) return undefined;
  const known = new Map<number, { rows: Float32Array; there: Uint8Array }>();
  const roundOf = (round: number): { rows: Float32Array; there: Uint8Array } => {
    const found = known.get(round) ?? { rows: new Float32Array(samples * width), there: new Uint8Array(samples) };
    known.set(round, found);
    return found;
  };
  return {
    read(round, indices, rows) {
      const kept = roundOf(round);
      for (let n = 0; n < indices.length; n++) {
        const index = indices[n]!;
        if (kept.there[index] === 0) return Promise.resolve(false);
        rows.set(kept.rows.subarray(index * width, (index + 1) * width), n * width);
      }
      return Promise.resolve(true);
    },
    write(round, indices, rows) {
      const kept = roundOf(round);
      for (let n = 0; n < indices.length; n++) {
        kept.rows.set(rows.subarray(n * width, (n + 1) * width), indices[n]! * width);
        kept.there[indices[n]!] = 1;
      }
      return Promise.resolve();
    },
  };
}
