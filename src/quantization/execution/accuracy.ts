/**
 * What 8-bit activations cost: executions whose outputs leave the original's too far are ruled out before any is timed.
 * Weights have the same codes in all of them, so the float execution shows what rounding the weights alone does.
 */
import { throwIfAborted } from '../../errors.js';
import type { Feeds } from '../../runtime/engine.js';
import { divergenceKind, outputDivergence, type Outputs } from '../../runtime/output-divergence.js';
import type { ExecutionAlternative } from './choose.js';
import type { ExecutionSessions } from './sessions.js';

export interface JudgedAlternative extends ExecutionAlternative {
  /** Divergence from the original: KL in nats for a classifier, squared error relative to the outputs' energy otherwise. */
  readonly divergence: number;
  readonly acceptable: boolean;
}

/** Divergence that is no reason to refuse an execution: nats, or a signal-to-noise ratio of 27 dB. */
const NEGLIGIBLE = { kl: 0.01, 'relative-error': 0.002 } as const;
/** How many times the divergence of the float execution is accepted beyond that. */
const TIMES_FLOAT = 2;

/**
 * @param reference outputs of the model before quantization for `feeds`, a few calibration samples
 * @param scores name of the output with one score per class, if the model has one
 * @param alternatives the first one is the float execution
 * @param sessions those of refused alternatives are closed
 */
export async function judgeAlternatives(
  sessions: ExecutionSessions,
  reference: Outputs,
  alternatives: readonly ExecutionAlternative[],
  feeds: Feeds,
  scores: string | undefined,
  signal?: AbortSignal,
): Promise<JudgedAlternative[]> {
  const judged: JudgedAlternative[] = [];
  const negligible = NEGLIGIBLE[divergenceKind(reference, scores)];
  let limit: number = negligible;
  for (const [i, alternative] of alternatives.entries()) {
    throwIfAborted(signal);
    const session = await sessions.open(alternative.int8);
    const divergence = outputDivergence(reference, await session.run(feeds), scores);
    if (i === 0) limit = Math.max(negligible, TIMES_FLOAT * divergence);
    const acceptable = i === 0 || divergence <= limit;
    if (!acceptable) await sessions.close(alternative.int8);
    judged.push({ ...alternative, divergence, acceptable });
  }
  return judged;
}
