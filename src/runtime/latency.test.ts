import { describe, expect, it } from 'vitest';
import type { Session } from './engine.js';
import { FEWEST_ROUNDS, measureLatency, quantile } from './latency.js';

/** Sessions on a clock of their own: each run takes what `duration` says. */
function stopwatch() {
  let time = 0;
  const order: string[] = [];
  const session = (name: string, duration: (run: number) => number): Pick<Session, 'run'> => {
    let run = 0;
    return {
      run: async () => {
        order.push(name);
        time += duration(run++);
        return {};
      },
    };
  };
  return { now: () => time, order, session };
}

const timed = (session: Pick<Session, 'run'>) => ({ session, feeds: {} });

describe('measureLatency', () => {
  it('runs in rounds that start with another session each time', async () => {
    const { now, order, session } = stopwatch();
    const sessions = ['a', 'b', 'c'].map((name) => timed(session(name, () => 15)));
    const results = await measureLatency(sessions, { warmUp: 1, runs: 4, minSeconds: 0, now });
    expect(order.join('')).toBe('abc' + 'abc' + 'bca' + 'cab' + 'abc');
    expect(results.map(({ runs }) => runs)).toEqual([4, 4, 4]);
  });

  it('runs fast sessions several times in a row, the first time untimed', async () => {
    const { now, order, session } = stopwatch();
    let before = '';
    // The first run after another session takes ten times as long.
    const moody = (name: string, time: number) =>
      timed(
        session(name, () => {
          const factor = before === name ? 1 : 10;
          before = name;
          return factor * time;
        }),
      );
    const results = await measureLatency([moody('a', 0.5), moody('b', 1)], { warmUp: 2, runs: 8, minSeconds: 0, now });
    expect(order.join('')).toMatch(/^abab(aaa)(bbb)(bbb)(aaa)/);
    expect(results).toMatchObject([
      { medianMs: 0.5, p90Ms: 0.5 },
      { medianMs: 1, p90Ms: 1, ratioToFirst: 2 },
    ]);
  });

  it('leaves warm-up out and gives median, 90th percentile and paired ratios', async () => {
    const { now, session } = stopwatch();
    // The machine slows down over time; the second session always takes twice as long as the first.
    const a = session('a', (run) => (run < 2 ? 1000 : 20 + run));
    const b = session('b', (run) => (run < 2 ? 1000 : 2 * (20 + run)));
    const [first, second] = await measureLatency([timed(a), timed(b)], { warmUp: 2, runs: 11, minSeconds: 0, now });
    expect(first).toMatchObject({ medianMs: 27, p90Ms: 31, runs: 11, ratioToFirst: 1 });
    expect(second).toMatchObject({ medianMs: 54, p90Ms: 62, ratioToFirst: 2 });
  });

  it('gives fast models more runs and slow ones fewer', async () => {
    const fast = stopwatch();
    const [quick] = await measureLatency([timed(fast.session('a', () => 1))], {
      runs: 10,
      minSeconds: 0.1,
      now: fast.now,
    });
    expect(quick.runs).toBe(100);
    const slow = stopwatch();
    const [late] = await measureLatency([timed(slow.session('a', () => 3000))], {
      runs: 50,
      maxSeconds: 2,
      now: slow.now,
    });
    expect(late.runs).toBe(FEWEST_ROUNDS);
    // One warm-up run was enough.
    expect(slow.order).toHaveLength(FEWEST_ROUNDS + 1);
  });

  it('stops on abort and refuses impossible options', async () => {
    const { session } = stopwatch();
    const controller = new AbortController();
    const sessions = [timed(session('a', (run) => (run === 3 ? (controller.abort(), 1) : 1)))];
    await expect(measureLatency(sessions, { signal: controller.signal })).rejects.toMatchObject({ code: 'aborted' });
    await expect(measureLatency(sessions, { runs: 0 })).rejects.toMatchObject({ code: 'bad-input' });
    expect(await measureLatency([])).toEqual([]);
  });
});

describe('quantile', () => {
  it('interpolates between sorted values as NumPy does', () => {
    expect(quantile([4, 1, 3, 2], 0.5)).toBe(2.5);
    expect(quantile([10, 20, 30, 40, 50], 0.9)).toBeCloseTo(46);
    expect(quantile([7], 0.9)).toBe(7);
  });
});
