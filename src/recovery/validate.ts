/** How close a compressed model's answers on VAL are to the original's, and how many of them are right. */
import type { ModelProto } from 'onnx-buf';
import type { Batch } from '../data/dataset.js';
import { throwIfAborted } from '../errors.js';
import { toBytes } from '../onnx/to-bytes.js';
import type { Engine, HostTensor, Session } from '../runtime/engine.js';
import { argmax } from '../runtime/scores.js';
import { outputDivergence, type Outputs } from '../runtime/output-divergence.js';

export interface Quality {
  /** From the original, mean over the batches by their samples: nats, or a ratio of energies. */
  readonly divergence: number;
  /** Share of right answers; absent without labels or class scores. */
  readonly top1?: number;
  /** Share of samples that get the class that the original gives them; absent without class scores. */
  readonly agreement?: number;
}

export interface Validator {
  /** @param model of the same outputs as the original @throws FlowCompressError `aborted`; what the engine reports */
  measure(model: ModelProto, signal?: AbortSignal): Promise<Quality>;
  release(): Promise<void>;
}

/** Elements of the original's outputs that are remembered between measurements. */
const REMEMBERED = 32e6;

/**
 * @param batches a fresh pass over VAL
 * @param scores name of the output with one score per class, if the model has one
 */
export async function openValidator(
  engine: Engine,
  original: ModelProto,
  scores: string | undefined,
  batches: () => AsyncIterable<Batch>,
): Promise<Validator> {
  const reference = await engine.createSession(toBytes(original));
  const fetched = scores === undefined ? undefined : [scores];
  const remembered: Outputs[] = [];
  let room = REMEMBERED;
  const referenceFor = async (index: number, { feeds }: Batch): Promise<Outputs> => {
    const known = remembered[index];
    if (known) return known;
    const outputs = await reference.run(feeds, fetched);
    room -= Object.values(outputs).reduce((sum, { data }) => sum + data.length, 0);
    if (room >= 0 && remembered.length === index) remembered.push(outputs);
    return outputs;
  };
  const measureSession = async (session: Session, signal?: AbortSignal): Promise<Quality> => {
    let [divergence, right, alike, samples, index] = [0, 0, 0, 0, 0];
    let labelled = scores !== undefined;
    for await (const batch of batches()) {
      throwIfAborted(signal);
      const outputs = await session.run(batch.feeds, fetched);
      const reference = await referenceFor(index++, batch);
      divergence += batch.size * outputDivergence(reference, outputs, scores);
      labelled &&= batch.labels !== undefined;
      if (scores !== undefined) {
        const answers = answersIn(outputs[scores]!, batch.size);
        if (labelled) right += countEqual(answers, batch.labels!);
        alike += countEqual(answers, answersIn(reference[scores]!, batch.size));
      }
      samples += batch.size;
    }
    return {
      divergence: divergence / samples,
      ...(labelled && { top1: right / samples }),
      ...(scores !== undefined && { agreement: alike / samples }),
    };
  };
  return {
    async measure(model, signal) {
      const session = await engine.createSession(toBytes(model));
      try {
        return await measureSession(session, signal);
      } finally {
        await session.release();
      }
    },
    release: () => reference.release(),
  };
}

function answersIn({ data, dims }: HostTensor, size: number): Int32Array {
  const classes = dims[1]!;
  return Int32Array.from({ length: size }, (_, i) => argmax(data, i * classes, classes));
}

function countEqual(a: Int32Array, b: Int32Array): number {
  return a.reduce((count, value, i) => count + (value === b[i] ? 1 : 0), 0);
}
