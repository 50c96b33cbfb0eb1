import { describe, expect, it } from 'vitest';
import { FlowCompressError } from '../../errors.js';
import { type Graph, rewrite } from '../../onnx/graph.js';
import type { Engine, Feeds } from '../../runtime/engine.js';
import { info, op, tinyModel } from '../../testing/graph-writing.js';
import { chooseExecution, type ChooseOptions, type ExecutionAlternative } from './choose.js';
import { executionSessions } from './sessions.js';

const base = tinyModel({ inputs: [info('x', [1])], outputs: [info('y', [1])], nodes: [op('Tanh x -> y')] });
/** A model that carries the number of int8 nodes in its opset of a domain of its own, for the fake engine to see. */
const build = (int8: ReadonlySet<string>) =>
  rewrite(base, (graph: Graph) => graph.requireOpset(int8.size + 1, 'int8-nodes'));

const alternative = (name: string, size: number): ExecutionAlternative => ({
  name,
  int8: new Set(Array.from({ length: size }, (_, i) => `${name}${String(i)}`)),
});
const batchOf = (size: number): Feeds => ({ x: { type: 'float32', dims: [size], data: new Float32Array(size) } });
const BATCHES = [batchOf(1), batchOf(32)];

/** Runs advance a clock by what `millis` says of (int8 nodes, batch, number of the run). */
function fakeEngine(millis: (nodes: number, batch: number, run: number) => number) {
  let clock = 0;
  let open = 0;
  const runs = new Map<number, number>();
  const engine: Engine = {
    provider: 'cpu',
    version: 'fake',
    createSession(model) {
      if (typeof model === 'string') throw new Error('bytes expected');
      const text = new TextDecoder('latin1').decode(model);
      const nodes = text.charCodeAt(text.indexOf('int8-nodes') + 'int8-nodes'.length + 1) - 1;
      open++;
      return Promise.resolve({
        inputs: [],
        outputs: [],
        run(feeds) {
          const run = (runs.get(nodes) ?? 0) + 1;
          runs.set(nodes, run);
          clock += millis(nodes, feeds['x']!.dims[0]!, run);
          return Promise.resolve({});
        },
        release() {
          open--;
          return Promise.resolve();
        },
      });
    },
  };
  const choose = async (
    alternatives: ExecutionAlternative[],
    options: ChooseOptions & { signal?: AbortSignal } = {},
  ) => {
    const sessions = executionSessions(engine, build);
    try {
      return await chooseExecution(sessions, alternatives, BATCHES, { now: () => clock, ...options });
    } finally {
      await sessions.closeAll();
    }
  };
  return { choose, runs, openSessions: () => open, elapsed: () => clock };
}

const FLOAT = alternative('float', 0);
const INT8 = alternative('int8', 9);
const PLANNED = alternative('planned', 4);

describe('chooseExecution', () => {
  it('takes the least worst ratio over the batches, not the best at one', async () => {
    const times: Record<number, [number, number]> = { 0: [1, 40], 9: [2, 20], 4: [1.25, 23] };
    const { choose, openSessions } = fakeEngine((nodes, batch) => times[nodes]![batch === 1 ? 0 : 1]);
    const choice = await choose([FLOAT, INT8, PLANNED]);
    expect(choice.name).toBe('planned');
    expect(choice.int8).toBe(PLANNED.int8);
    expect(choice.timings.map((t) => t.name)).toEqual(['float', 'int8', 'planned']);
    expect(choice.timings.map((t) => t.medianMs)).toEqual([
      [1, 40],
      [2, 20],
      [1.25, 23],
    ]);
    expect(openSessions()).toBe(0);
  });

  it('breaks ties for the fewest int8 nodes', async () => {
    const { choose } = fakeEngine((nodes) => (nodes === 9 ? 0.995 : 1));
    expect((await choose([INT8, PLANNED, FLOAT])).name).toBe('float');
    expect((await choose([INT8, PLANNED])).name).toBe('planned');
  });

  it('withstands outliers', async () => {
    const { choose } = fakeEngine((nodes, _, run) => (nodes === 9 ? 1 : 1.2) * (run % 4 === 0 ? 3 : 1));
    expect((await choose([FLOAT, INT8])).name).toBe('int8');
  });

  it('does not count the run that follows another file', async () => {
    let last = '';
    const { choose } = fakeEngine((nodes, batch) => {
      const settled = last === `${String(nodes)} ${String(batch)}`;
      last = `${String(nodes)} ${String(batch)}`;
      if (batch !== 1) return 25;
      return nodes === 9 ? (settled ? 10 : 20) : 10.5;
    });
    const choice = await choose([FLOAT, INT8]);
    expect(choice.name).toBe('int8');
    expect(choice.timings.map((t) => t.medianMs[0])).toEqual([10.5, 10]);
  });

  it('lets go of the slow early and keeps to its time', async () => {
    const { choose, runs, elapsed } = fakeEngine((nodes, batch) => (nodes === 0 ? 50 : 5) * (batch === 1 ? 1 : 4));
    await choose([FLOAT, INT8, PLANNED], { budgetMs: 500 });
    expect(runs.get(0)!).toBeLessThan(10);
    expect(runs.get(9)!).toBeGreaterThan(15);
    expect(elapsed()).toBeLessThan(1700);
  });

  it('times nothing when there is no choice', async () => {
    const { choose, runs } = fakeEngine(() => 1);
    expect((await choose([FLOAT, { name: 'planned', int8: new Set() }])).name).toBe('float');
    expect(runs.size).toBe(0);
    await expect(choose([])).rejects.toThrow(FlowCompressError);
  });

  it('stops when aborted, with all sessions released', async () => {
    const controller = new AbortController();
    const { choose, openSessions } = fakeEngine((_nodes, _batch, run) => {
      if (run === 5) controller.abort();
      return 1;
    });
    await expect(choose([FLOAT, INT8], { signal: controller.signal })).rejects.toMatchObject({ code: 'aborted' });
    expect(openSessions()).toBe(0);
  });
});
