/** How much faster or slower models are than the first of them, as files in the engine. */
import type { ModelProto } from 'onnx-buf';
import { toBytes } from '../../onnx/to-bytes.js';
import type { RunControl } from '../../progress.js';
import type { Session } from '../../runtime/engine.js';
import { measureLatency, TIMED_TOGETHER } from '../../runtime/latency.js';
import type { Workspace } from '../workspace.js';

/** @returns median times of the largest timed batch, divided by that of the first model; all are timed in turns */
export async function timeRatios(
  { engine, feedsFor, timedBatches }: Workspace,
  models: readonly ModelProto[],
  { signal }: RunControl = {},
): Promise<number[]> {
  const feeds = feedsFor(timedBatches.at(-1)!);
  const sessions: Session[] = [];
  try {
    for (const model of models) sessions.push(await engine.createSession(toBytes(model), { config: TIMED_TOGETHER }));
    const results = await measureLatency(
      sessions.map((session) => ({ session, feeds })),
      { signal, minSeconds: 1 },
    );
    return results.map(({ ratioToFirst }) => ratioToFirst);
  } finally {
    await Promise.all(sessions.map((session) => session.release()));
  }
}
