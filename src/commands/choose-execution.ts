/** Picks the fastest of the files that could be written, by timing them against each other on this machine. */
import { toBytes } from '../onnx/to-bytes.js';
import type { RunControl } from '../progress.js';
import type { Int8Candidate } from '../quantization/execution/candidates.js';
import type { QuantizationOutcome } from '../quantization/method.js';
import { measureLatency } from '../runtime/latency.js';
import type { ExecutionChoice } from './execution.js';
import type { PreparedStudy } from './quantization-study.js';
import type { Workspace } from './workspace.js';

export async function chooseFastest(
  { engine, feedsFor, fixedBatch }: Workspace,
  _study: PreparedStudy,
  candidates: ReadonlyMap<string, Int8Candidate>,
  outcome: QuantizationOutcome,
  choiceOf: (name: string, int8: ReadonlySet<string>) => ExecutionChoice,
  control: RunControl,
): Promise<ExecutionChoice> {
  const all = new Set(candidates.keys());
  const quick = new Set([...candidates].filter(([, c]) => !c.slow).map(([name]) => name));
  const choices = [choiceOf('float', new Set()), choiceOf('int8', all)];
  if (quick.size < all.size) choices.push(choiceOf('mixed', quick));
  const sessions = await Promise.all(choices.map((choice) => engine.createSession(toBytes(choice.build(outcome)))));
  const worst = choices.map(() => 0);
  try {
    for (const batch of fixedBatch === undefined ? [1, 32] : [fixedBatch]) {
      const feeds = feedsFor(batch);
      const timed = await measureLatency(
        sessions.map((session) => ({ session, feeds })),
        {
          ...control,
          stage: `choose execution, batch ${String(batch)}`,
          warmUp: 3,
          runs: 10,
        },
      );
      const best = Math.min(...timed.map((t) => t.ratioToFirst));
      timed.forEach((t, i) => {
        worst[i] = Math.max(worst[i]!, t.ratioToFirst / best);
      });
    }
  } finally {
    await Promise.all(sessions.map((session) => session.release()));
  }
  return choices[worst.indexOf(Math.min(...worst))]!;
}
