/** What `compress` does about a model that turns out slower than planned, with times that the test makes up. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { normals, tinyResNet } from '../../testing/tiny-models.js';
import { npzOf } from '../../testing/tiny-net.js';
import { compressModel } from './compress.js';

/** Planned: that of the original, of the rungs below it, and of those that are climbed to later; of the models that are made. */
const times = vi.hoisted(() => ({ asked: 0, isMade: false, made: [] as number[], tries: 0 }));
vi.mock('../prune/time-ratios.js', () => ({
  timeRatios() {
    const planned = times.tries > 0 ? 0.3 : times.asked++ === 0 ? 1 : 0.4;
    const ratio = times.isMade ? times.made[times.tries++]! : planned;
    times.isMade = false;
    return Promise.resolve([1, ratio]);
  },
}));

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'speed-'));
  await writeFile(join(folder, 'train.npz'), npzOf('x', [3, 8, 8], normals(200 * 192, 1)));
});
afterAll(() => rm(folder, { recursive: true }));

const compress = (made: number[]) => {
  Object.assign(times, { made, asked: 0, tries: 0, isMade: false });
  return compressModel(tinyResNet(17, 24), {
    ...{ data: join(folder, 'train.npz'), output: join(folder, 'out.onnx'), force: true, threads: 1, remeasure: true },
    ...{ align: 4, calibSamples: 32, probeSamples: 8, steps: 0, latencyRuns: 2, execution: 'float' as const },
    speedup: 2,
    onProgress({ note }) {
      // The plan is shown before a model is made.
      if (note !== undefined) times.isMade = true;
    },
  });
};

it('climbs the ladder further until a model keeps to the speed', async () => {
  const { report } = await compress([0.7, 0.45]);
  const { plan, limits } = report;
  expect(limits.speed).toMatchObject({ met: true });
  expect(limits.speed!.achieved).toBeCloseTo(1 / 0.45, 6);
  const tried = plan.filter((one) => one.tried !== undefined);
  expect(tried.map((one) => one.tried)).toEqual([1, 2]);
  expect(tried[1]).toMatchObject({ chosen: true, rung: plan.at(-1)!.rung });
  expect(tried[1]!.rung).toBeGreaterThan(Math.max(...plan.slice(0, -1).map(({ rung }) => rung)));
}, 60_000);

it('gives up at the second model', async () => {
  await expect(compress([0.8, 0.7])).rejects.toMatchObject({
    code: 'infeasible',
    message: expect.stringContaining('1.43 times as fast') as string,
  });
}, 60_000);
