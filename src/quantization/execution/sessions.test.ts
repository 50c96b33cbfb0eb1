import { describe, expect, it } from 'vitest';
import type { Engine, SessionOptions } from '../../runtime/engine.js';
import { TIMED_TOGETHER } from '../../runtime/latency.js';
import { tinyResNet } from '../../testing/tiny-models.js';
import { executionSessions } from './sessions.js';

/** Notes the options of every session, and what was released. */
function notingEngine() {
  const created: (SessionOptions | undefined)[] = [];
  let open = 0;
  const engine: Engine = {
    provider: 'cpu',
    version: 'fake',
    createSession(_, options) {
      created.push(options);
      open++;
      const release = (): Promise<void> => {
        open--;
        return Promise.resolve();
      };
      return Promise.resolve({ inputs: [], outputs: [], run: () => Promise.resolve({}), release });
    },
  };
  return { engine, created, openSessions: () => open };
}

describe('executionSessions', () => {
  it('opens files so that threads of one do not spin while another is timed', async () => {
    const { engine, created } = notingEngine();
    const sessions = executionSessions(engine, () => tinyResNet());
    await sessions.open(new Set(['a']));
    expect(created).toEqual([{ config: TIMED_TOGETHER }]);
    expect(TIMED_TOGETHER).toEqual({ 'session.intra_op.allow_spinning': '0' });
  });

  it('opens each file once, whatever the order of its nodes, until it is closed', async () => {
    const { engine, created, openSessions } = notingEngine();
    const sessions = executionSessions(engine, () => tinyResNet());
    const first = await sessions.open(new Set(['a', 'b']));
    expect(await sessions.open(new Set(['b', 'a']))).toBe(first);
    await sessions.open(new Set(['a']));
    expect(created).toHaveLength(2);
    await sessions.close(new Set(['a', 'b']));
    expect(openSessions()).toBe(1);
    await sessions.closeAll();
    expect(openSessions()).toBe(0);
    expect(await sessions.open(new Set(['a', 'b']))).not.toBe(first);
  });
});
