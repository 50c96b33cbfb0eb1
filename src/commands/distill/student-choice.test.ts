import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { DistillReport } from '../../report/report.js';
import { saveModel } from '../../node/model-file.js';
import { normals } from '../../testing/tiny-models.js';
import { npzOf } from '../../testing/tiny-net.js';
import { smallNetwork } from '../../testing/zoo-models.js';
import { distillModel, type DistillInput } from './distill.js';
import { trainModel } from '../train/train.js';
import { withInputNamed } from '../train/trainee.js';

let folder: string;
/** A run without interruptions. */
let first: { report: DistillReport; bytes: Buffer };
const at = (name: string): string => join(folder, name);
const SIZE = 8;

/** Noise around a bright corner, the same one for all images of a class. */
function images(count: number, seed: number): { values: Float32Array; labels: number[] } {
  const labels = Array.from({ length: count }, (_, i) => i % 3);
  const values = normals(count * SIZE * SIZE, seed, 0.5).map((v, i) => {
    const [n, y, x] = [Math.floor(i / SIZE ** 2), Math.floor(i / SIZE) % SIZE, i % SIZE];
    const corner = (y < SIZE / 2 ? 0 : 2) + (x < SIZE / 2 ? 0 : 1);
    return v + (corner === labels[n] ? 1 : 0);
  });
  return { values, labels };
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'choice-'));
  const [train, test] = [images(120, 1), images(30, 2)];
  await writeFile(at('train.npz'), npzOf('pixels', [1, SIZE, SIZE], train.values, train.labels));
  await writeFile(at('test.npz'), npzOf('pixels', [1, SIZE, SIZE], test.values, test.labels));
  const big = smallNetwork('resnet14', { classes: 3, inputSize: SIZE, channels: 1, width: 0.5 });
  await saveModel(withInputNamed(big, 'pixels'), at('big.onnx'));
  await trainModel(at('big.onnx'), { ...common(), output: at('teacher.onnx'), epochs: 3, lr: 0.01 });
}, 60_000);

afterAll(() => rm(folder, { recursive: true }));

const common = () => ({
  ...{ data: at('train.npz'), test: at('test.npz'), force: true, threads: 1, batchSize: 12 },
  ...{ calibSamples: 24, latencyRuns: 1 },
});

const options = (more: Partial<DistillInput> = {}): DistillInput => ({
  ...common(),
  ...{
    teacher: at('teacher.onnx'),
    output: at('out.onnx'),
    method: 'kd',
    steps: 100,
    lr: 0.01,
    maxSize: 90_000,
    ...more,
  },
});

describe('distillModel with a student to be chosen', () => {
  it('tries what is within the limits, halves the field, and trains the best', async () => {
    const { report } = await distillModel('auto', options());
    const candidates = report.candidates!;
    const chosen = candidates.filter((one) => one.chosen);
    expect(chosen.map(({ name }) => name)).toEqual([report.student]);
    const tried = candidates.filter(({ rounds }) => rounds.length > 0);
    expect(tried.length).toBeGreaterThan(1);
    expect(tried.every(({ bytes, refused }) => bytes <= 90_000 && refused === undefined)).toBe(true);
    const most = Math.max(...tried.map(({ rounds }) => rounds.length));
    for (let round = 0; round < most; round++) {
      const still = tried.filter(({ rounds }) => rounds.length > round);
      expect(still.length).toBe(Math.ceil(tried.length / 2 ** round));
      expect(new Set(still.map(({ rounds }) => rounds[round]!.steps)).size).toBe(1);
    }
    const spent = tried.flatMap(({ rounds }) => rounds.map(({ steps }) => steps)).reduce((a, b) => a + b, 0);
    expect(spent).toBeLessThanOrEqual(25);
    for (const { rounds } of tried)
      for (const { alignment, cka, quality, score } of rounds)
        expect(score).toBeCloseTo(0.4 * (1 - Math.min(1, alignment)) + 0.4 * cka + 0.2 * quality, 9);
    // Nobody who left a round was better than those who stayed, but for a tie.
    const lastScores = tried.filter(({ rounds }) => rounds.length === most).map(({ rounds }) => rounds.at(-1)!.score);
    expect(chosen[0]!.rounds.at(-1)!.score).toBeGreaterThan(Math.max(...lastScores) - 0.011);
    // What is promised of the file holds for the one that is written.
    expect(report.after).toMatchObject({ bytes: chosen[0]!.bytes, macs: chosen[0]!.macs });
    expect(report.training.steps).toBe(100);
    expect(report.settings).toMatchObject({ maxSize: 90_000 });
    expect(candidates.some(({ refused }) => refused === 'no smaller than the teacher')).toBe(true);
    const bytes = await readFile(at('out.onnx'));
    first = { report, bytes };
    const half = candidates.find(({ name }) => name === 'teacher.onnx, every second block')!;
    expect(half.bytes).toBeLessThan((await readFile(at('teacher.onnx'))).length);
    expect(half.bytes).toBeGreaterThan(1000);
  }, 60_000);

  it('goes on from the scores that it has, without timing or trying again, to the same student', async () => {
    const runDir = at('run');
    const controller = new AbortController();
    const seen: string[] = [];
    const stopping = options({
      runDir,
      signal: controller.signal,
      onProgress: ({ stage }) => {
        if (/^try .*\(2 of /.test(stage)) controller.abort();
      },
    });
    await expect(distillModel('auto', stopping)).rejects.toMatchObject({ code: 'aborted' });
    const onProgress = ({ stage }: { stage: string }): void => void seen.push(stage);
    const { report } = await distillModel(
      'auto',
      options({ runDir, resume: true, onProgress, output: at('resumed.onnx') }),
    );
    expect(seen.some((stage) => /^try .*\(1 of \d+, round 1/.test(stage))).toBe(false);
    expect(seen.some((stage) => /^try .*\(2 of \d+, round 1/.test(stage))).toBe(true);
    expect(seen).not.toContain('time candidates');
    const untimed = (candidates = report.candidates!) => candidates.map(({ ms: _, ...rest }) => rest);
    expect(untimed()).toEqual(untimed(first.report.candidates));
    expect((await readFile(at('resumed.onnx'))).equals(first.bytes)).toBe(true);
  }, 60_000);

  it.each<[string, Partial<DistillInput>, string, RegExp]>([
    [
      'limits that nothing meets, naming the nearest',
      { maxSize: 500 },
      'infeasible',
      /nearest is .*: .*kB where 500 B are allowed/,
    ],
    ['a time that nothing meets', { maxSize: undefined, maxLatency: 1e-6 }, 'infeasible', /ms where/],
    ['a shape for a student without a name', { width: 0.5 }, 'bad-input', /width belongs to a student that is named/],
  ])('refuses %s', async (_, more, code, message) => {
    await expect(distillModel('auto', options({ ...more, output: at('refused.onnx') }))).rejects.toMatchObject({
      ...{ code, message: expect.stringMatching(message) as string },
    });
    await expect(readFile(at('refused.onnx'))).rejects.toMatchObject({ code: 'ENOENT' });
  });

  it('refuses limits for a student that is named', async () => {
    await expect(distillModel('resnet8', options())).rejects.toMatchObject({
      ...{ code: 'bad-input', message: expect.stringMatching(/maxSize belongs to a student that is chosen/) as string },
    });
  });
});
