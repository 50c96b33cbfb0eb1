/** What a model's outputs say of samples, found out by a run. */
import type { Feeds, Session } from './engine.js';
import { headOf, type Head, type NamedTensor } from './scores.js';

export interface RunHead {
  readonly outputs: readonly NamedTensor[];
  readonly head: Head;
  /** Name of the output with one score per class, where there is one. */
  readonly scores: string | undefined;
}

/** Runs a session once. @param labelled whether the samples have labels (`headOf`) @throws what the session throws */
export async function headOfRun(session: Session, feeds: Feeds, labelled: boolean): Promise<RunHead> {
  const results = await session.run(feeds);
  const outputs = session.outputs.map(({ name }) => ({ name, tensor: results[name]! }));
  const head = headOf(outputs, feeds, labelled);
  return { outputs, head, scores: head.kind === 'classes' ? outputs[head.output]!.name : undefined };
}
