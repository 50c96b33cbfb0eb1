/** `sweep` and `worker` through the whole program, with trials in real processes. */
import { spawn, type ChildProcess } from 'node:child_process';
import { readdir, readFile, stat } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { BenchReport } from '../report/report.js';
import { workbench, type Workbench } from '../testing/command-line.js';
import { normals, tinyResNet } from '../testing/tiny-models.js';
import { npzOf } from '../testing/tiny-net.js';
import type { SweepRequest } from '../commands/sweep.js';
import { benchReport } from '../testing/reports.js';
import type { SweepPlan } from '../experiments/sweep-folder.js';
import { library } from './library.js';

const MAIN = fileURLToPath(new URL('./main.ts', import.meta.url));
const SAMPLES = 40;
const DEFAULTS =
  'command: evaluate\ndefaults: { model: model.onnx, data: data.npz, batch-sizes: 1, latency-runs: 2 }\n';

let bench: Workbench;
beforeAll(async () => {
  bench = await workbench();
  await bench.model('model.onnx', tinyResNet());
  const labels = Array.from({ length: SAMPLES }, (_, i) => i % 5);
  await bench.write('data.npz', npzOf('x', [3, 8, 8], normals(SAMPLES * 192, 3), labels));
});
afterAll(() => bench.remove());

function reportOf(stdout: string): BenchReport {
  return JSON.parse(stdout) as BenchReport;
}

describe('flow-compress sweep', () => {
  it('runs every trial once, and shows again what is there', async () => {
    const file = await bench.write('seeds.yaml', `${DEFAULTS}sweep: { seed: [0, 1] }\n`);
    const line = ['sweep', file, '--run-dir', bench.at('seeds'), '--json', '--quiet'];
    const first = await bench.run([...line, '--workers', '2', '--report', bench.at('seeds.html')]);
    expect({ code: first.code, stderr: first.stderr }).toEqual({ code: 0, stderr: '' });
    const report = reportOf(first.stdout);
    expect(report.rows).toMatchObject([{ model: 'model.onnx', method: 'evaluate', seeds: 2 }]);
    expect(report.trials).toEqual({ planned: 2, done: 2 });
    expect(report.overhead).toBeLessThan(1);
    const again = await bench.run(line);
    expect(again.changed).toEqual([]);
    expect(reportOf(again.stdout).rows).toEqual(report.rows);
    const status = await bench.run(['sweep', '--run-dir', bench.at('seeds'), '--status', '--json']);
    expect(reportOf(status.stdout).rows).toEqual(report.rows);
    const worker = await bench.run(['worker', bench.at('seeds'), '--quiet']);
    expect(worker).toMatchObject({
      code: 0,
      changed: [],
      stdout: expect.stringMatching(/^0 trials here; of 2 in all 2/) as string,
    });
  });

  it('hands what the trials of one phase write to those of the next', async () => {
    const file = await bench.write(
      'phases.yaml',
      [
        'defaults: { data: data.npz, latency-runs: 2 }',
        'phases:',
        '  small: { command: quantize, defaults: { model: model.onnx, execution: float, method: uniform, seed: 4 }, sweep: { bits: [4, 8] } }',
        '  timed: { command: evaluate, from: small, defaults: { model: model.onnx, batch-sizes: [1, 2] } }',
      ].join('\n'),
    );
    const line = ['sweep', file, '--run-dir', bench.at('phases'), '--json', '--quiet', '--set', 'small.bits=3,8'];
    const { code, stdout, stderr } = await bench.run(line);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const { rows, of } = reportOf(stdout);
    expect(of).toEqual(['quantize', 'evaluate']);
    expect(rows.map(({ model, method, options }) => [model, method, options])).toEqual([
      ['model.onnx', 'uniform', { bits: '3' }],
      ['model.onnx', 'uniform', { bits: '8' }],
      ['model.onnx', 'uniform', { bits: '3' }],
      ['model.onnx', 'uniform', { bits: '8' }],
    ]);
    // The evaluated files are those that were written, beside the original.
    expect(rows[2]!.bytes).toEqual(rows[0]!.bytes);
    expect(rows[3]!.bytes).toEqual(rows[1]!.bytes);
    expect(rows[2]!.bytes.after.mean).toBeLessThan(rows[3]!.bytes.after.mean);
    expect(rows[3]!.latencies!.map(({ batch }) => batch)).toEqual([1, 2]);
    expect(rows[0]!.val?.after).toBeDefined();
    const plan = JSON.parse(await readFile(bench.at('phases/sweep.json'), 'utf8')) as SweepPlan;
    expect(plan.trials.map(({ options }) => options['seed'])).toEqual([4, 4, 4, 4]);
  });

  it('keeps what a trial says of itself when it fails, with the exit code of it', async () => {
    const file = await bench.write(
      'failing.yaml',
      'command: quantize\ndefaults: { model: model.onnx, data: data.npz, execution: float }\nsweep: { max-size: [10] }\n',
    );
    const line = ['sweep', file, '--run-dir', bench.at('failing'), '--json', '--quiet'];
    const { code, stdout } = await bench.run(line);
    expect(code).toBe(3);
    const { rows, failed } = reportOf(stdout);
    expect(rows).toEqual([]);
    expect(failed).toMatchObject([
      { code: 'infeasible', trial: expect.stringMatching(/^model-max-size-10-/) as string },
    ]);
  });

  it('only plans with no workers, and takes other values from the command line', async () => {
    const file = await bench.write('plan.yaml', `${DEFAULTS}sweep: { seed: [0, 1] }\n`);
    let request: SweepRequest | undefined;
    const runSweep = (given: SweepRequest): Promise<{ report: BenchReport }> => {
      request = given;
      return Promise.resolve({ report: benchReport() });
    };
    const line = ['sweep', file, '--run-dir', bench.at('plan'), '--set', 'seed=5,6,7 latency-runs=9', '--lease', '2m'];
    await bench.run(line, { library: { ...library, runSweep } });
    expect(request).toMatchObject({ lease: 120, status: false });
    expect(request!.plan!.trials.map(({ options }) => [options['seed'], options['latency-runs']])).toEqual([
      ['5', '9'],
      ['6', '9'],
      ['7', '9'],
    ]);
    const planned = await bench.run(['sweep', file, '--run-dir', bench.at('plan'), '--workers', '0', '--json']);
    expect(planned.code).toBe(0);
    expect(reportOf(planned.stdout)).toMatchObject({ trials: { planned: 2, done: 0 }, rows: [] });
    expect(planned.stderr).toMatch(/2 trials of evaluate \(2 seeds\)/);
  });

  it.each([
    ['sweep: { sed: [1] }', [], /unknown key "sed"[^]*"seed"/],
    ['sweep: { seed: [x] }', [], /cannot run: seed in [^]* must be a whole number/],
    ['sweep: { threads: [0] }', [], /cannot run: [^]*threads/],
    ['sweep: { data: [gone.npz] }', [], /data in [^]* is not there: [^]*gone\.npz/],
    ['sweep: { model: [gone.onnx] }', [], /model in [^]* is not there/],
    ['sweep: { seed: [1] }', ['--set', 'sed=2'], /unknown key "sed"[^]*"seed"/],
    ['sweep: { seed: [1] }', ['--set', 'seed'], /name=value/],
    ['sweep: { seed: [1] }', ['--queue', 'http://x'], /address of a Redis server/],
  ])('refuses %j with %j before anything runs', async (text, more, message) => {
    const file = await bench.write('bad.yaml', `${DEFAULTS}${text}\n`);
    const { code, stderr } = await bench.run(['sweep', file, '--run-dir', bench.at('bad'), '--quiet', ...more]);
    expect(code).toBe(2);
    expect(stderr).toMatch(message);
    expect(await readdir(bench.at('bad/trials')).catch(() => [])).toEqual([]);
  });

  it('refuses folders that hold something else, and workers of another version', async () => {
    const refused = async (args: string[], message: RegExp): Promise<void> => {
      const { code, stderr } = await bench.run(args);
      expect(code).toBe(2);
      expect(stderr).toMatch(message);
    };
    await refused(['worker', bench.at('nowhere')], /has no sweep in it/);
    await refused(['sweep', '--run-dir', bench.at('nowhere')], /has no sweep in it/);
    const file = await bench.write('other.yaml', `${DEFAULTS}sweep: { seed: [0, 1] }\n`);
    await refused(['sweep', file, '--run-dir', bench.path], /something else already/);
    await bench.run(['sweep', file, '--run-dir', bench.at('other'), '--workers', '0']);
    await bench.write('other.yaml', `${DEFAULTS}sweep: { seed: [1, 2] }\n`);
    await refused(['sweep', file, '--run-dir', bench.at('other')], /another sweep: 1 of its 2 trials/);
    await bench.write(
      'other/sweep.json',
      (await readFile(bench.at('other/sweep.json'), 'utf8')).replace('"0.0.0"', '"0.0.1"'),
    );
    await refused(['worker', bench.at('other')], /begun with flow-compress 0\.0\.1; this is 0\.0\.0/);
  });
});

describe.skipIf(process.platform !== 'linux')('a worker that ends in the middle of a trial', () => {
  /** Starts a worker on one trial that runs for ever, and waits for its process. */
  async function midway(): Promise<{ worker: ChildProcess; trial: number }> {
    const worker = spawn(process.execPath, ['--import', 'tsx', MAIN, 'worker', bench.at('long')], { stdio: 'ignore' });
    const children = `/proc/${String(worker.pid)}/task/${String(worker.pid)}/children`;
    for (;;) {
      for (const pid of (await readFile(children, 'utf8').catch(() => '')).trim().split(' ').map(Number)) {
        const line = await readFile(`/proc/${String(pid)}/cmdline`, 'utf8').catch(() => '');
        // Its own engine is loaded: it is past the beginning.
        const maps = await readFile(`/proc/${String(pid)}/maps`, 'utf8').catch(() => '');
        if (line.includes('evaluate') && maps.includes('onnxruntime')) return { worker, trial: pid };
      }
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  const gone = async (pid: number): Promise<void> => {
    while (await stat(`/proc/${String(pid)}`).catch(() => undefined))
      await new Promise((resolve) => setTimeout(resolve, 50));
  };

  it('takes the process of the trial with it, interrupted or killed', async () => {
    const { version } = JSON.parse(await readFile(new URL('../../package.json', import.meta.url), 'utf8')) as {
      version: string;
    };
    const file = await bench.write(
      'long.yaml',
      'command: evaluate\ndefaults: { model: model.onnx, data: data.npz, batch-sizes: 1, latency-runs: 10000 }\nsweep: { seed: [0] }\n',
    );
    await bench.run(['sweep', file, '--run-dir', bench.at('long'), '--workers', '0', '--lease', '1s']);
    const plan = await readFile(bench.at('long/sweep.json'), 'utf8');
    await bench.write('long/sweep.json', plan.replace('"0.0.0"', JSON.stringify(version)));
    const first = await midway();
    first.worker.kill('SIGINT');
    expect(await new Promise((resolve) => first.worker.once('exit', resolve))).toBe(130);
    await gone(first.trial);
    const leases = (await readdir(bench.at('long/leases'))).filter((name) => !name.startsWith('.'));
    expect(JSON.parse(await readFile(bench.at(`long/leases/${leases[0]!}`), 'utf8'))).toMatchObject({
      ended: 'stopped',
    });
    const second = await midway();
    second.worker.kill('SIGKILL');
    await gone(second.trial);
  });
});
