/**
 * What 8-bit activations cost: executions whose outputs leave the original's too far are ruled out before any is timed.
 * Weights have the same codes in all of them, so the float execution shows what rounding the weights alone does.
 */
import type { ModelProto } from 'onnx-buf';
import { throwIfAborted } from '../../errors.js';
import { toBytes } from '../../onnx/to-bytes.js';
import type { Engine, Feeds } from '../../runtime/engine.js';
import { outputDivergence, type Outputs } from '../output-divergence.js';
import type { ExecutionAlternative } from './choose.js';

export interface JudgedAlternative extends ExecutionAlternative {
  /** Divergence from the original: KL in nats for a classifier, squared error relative to the outputs' energy otherwise. */
  readonly divergence: number;
  readonly acceptable: boolean;
}

/** Divergence that is no reason to refuse an execution: nats, or a signal-to-noise ratio of 20 dB. */
const NEGLIGIBLE = 0.01;
/** How many times the divergence of the float execution is accepted beyond that. */
const TIMES_FLOAT = 2;

/**
 * @param original the model before quantization
 * @param alternatives the first one is the float execution
 * @param feeds a few calibration samples
 */
export async function judgeAlternatives(
  engine: Engine,
  original: ModelProto,
  build: (int8: ReadonlySet<string>) => ModelProto,
  alternatives: readonly ExecutionAlternative[],
  feeds: Feeds,
  signal?: AbortSignal,
): Promise<JudgedAlternative[]> {
  const outputsOf = async (model: ModelProto): Promise<Outputs> => {
    throwIfAborted(signal);
    const session = await engine.createSession(toBytes(model));
    try {
      return await session.run(feeds);
    } finally {
      await session.release();
    }
  };
  const reference = await outputsOf(original);
  const judged: JudgedAlternative[] = [];
  let limit = NEGLIGIBLE;
  for (const [i, alternative] of alternatives.entries()) {
    const divergence = outputDivergence(reference, await outputsOf(build(alternative.int8)));
    if (i === 0) limit = Math.max(NEGLIGIBLE, TIMES_FLOAT * divergence);
    judged.push({ ...alternative, divergence, acceptable: i === 0 || divergence <= limit });
  }
  return judged;
}
