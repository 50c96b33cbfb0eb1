/** Compiled candidate files: each is opened once, judged and timed, and closed when it can no longer win. */
import type { ModelProto } from 'onnx-buf';
import { toBytes } from '../../onnx/to-bytes.js';
import type { Engine, Session } from '../../runtime/engine.js';
import { TIMED_TOGETHER } from '../../runtime/latency.js';

export interface ExecutionSessions {
  /** The session of the file with these nodes in int8. */
  open(int8: ReadonlySet<string>): Promise<Session>;
  close(int8: ReadonlySet<string>): Promise<void>;
  closeAll(): Promise<void>;
}

export function executionSessions(engine: Engine, build: (int8: ReadonlySet<string>) => ModelProto): ExecutionSessions {
  const opened = new Map<string, Session>();
  const close = async (key: string): Promise<void> => {
    const session = opened.get(key);
    opened.delete(key);
    await session?.release();
  };
  return {
    async open(int8) {
      const key = executionKey(int8);
      let session = opened.get(key);
      if (!session) {
        session = await engine.createSession(toBytes(build(int8)), { config: TIMED_TOGETHER });
        opened.set(key, session);
      }
      return session;
    },
    close: (int8) => close(executionKey(int8)),
    async closeAll() {
      for (const key of [...opened.keys()]) await close(key);
    },
  };
}

/** Equal for executions with the same nodes in int8. */
export function executionKey(int8: ReadonlySet<string>): string {
  return JSON.stringify([...int8].sort());
}
