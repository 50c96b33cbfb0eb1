import { existsSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { SweepRequest } from '../commands/sweep.js';
import { workbench, type Outcome, type Workbench } from '../testing/command-line.js';
import { benchReport } from '../testing/reports.js';
import { crossed } from './bench.js';
import { library } from './library.js';

let bench: Workbench;
let args: string[];
beforeEach(async () => {
  bench = await workbench();
  const [a, b, data] = [
    await bench.write('a.onnx', '-'),
    await bench.write('b.onnx', '-'),
    await bench.write('d.npz', '-'),
  ];
  args = ['bench', 'prune', a!, b!, '--data', data!, '--folder', bench.at('runs')];
});
afterEach(() => bench.remove());

/** What the command asks the library for. */
async function asked(line: readonly string[], report = benchReport()): Promise<Outcome & { request?: SweepRequest }> {
  let request: SweepRequest | undefined;
  const outcome = await bench.run(line, {
    library: {
      ...library,
      runSweep: (given) => {
        request = given;
        return Promise.resolve({ report });
      },
    },
  });
  return { ...outcome, ...(request && { request }) };
}

describe('flow-compress bench', () => {
  it('makes a trial of every model, method, combination and seed', async () => {
    const more = ['--methods', 'idap,l1', '--seeds', '0,3', '--vary', 'reduce=0.5,0.7', '--augment', 'crop,flip'];
    const { request, code } = await asked([...args, ...more, '--steps', '7', '--workers', '3']);
    expect(code).toBe(0);
    expect(request).toMatchObject({ folder: bench.at('runs'), workers: 3, status: false });
    const { trials, commands, inputs } = request!.plan!;
    expect(trials).toHaveLength(16);
    expect(commands).toEqual({ prune: { writes: true, resumes: true } });
    expect(inputs).toEqual([bench.at('a.onnx'), bench.at('d.npz'), bench.at('b.onnx')]);
    expect(trials.at(-1)).toMatchObject({
      models: [bench.at('b.onnx')],
      labels: { reduce: '0.7' },
      options: {
        ...{ data: bench.at('d.npz'), method: 'l1', seed: 3, reduce: '0.7', steps: 7, augment: ['crop', 'flip'] },
      },
    });
  });

  it.each([
    [['--methods', 'idap', '--vary', 'reduce'], /name=value/],
    [['--methods', 'idap', '--seeds', 'one'], /whole number/],
    [[], /--methods is required/],
    [['--methods', 'idap,l3'], /l3[^]*unknown method "l3" .did you mean l1\?.; there are idap, /],
    [['--methods', 'idap', '--vary', 'redce=0.5'], /Unknown key "redce"[^]*"reduce"/],
    [['--methods', 'idap', '--vary', 'reduce=much'], /reduce in bench prune must be a number/],
    [['--methods', 'idap', '--vary', 'reduce=7'], /reduce[^]*cannot run|cannot run[^]*reduce/],
    [['--methods', 'idap', '--data', 'gone.npz'], /data in bench prune is not there/],
    [['--methods', 'idap', '--workers', '-1'], /--workers/],
  ])('refuses %j before anything runs', async (more, message) => {
    const { code, stderr, request } = await asked([...args, ...more]);
    expect({ code, request }).toEqual({ code: 2, request: undefined });
    expect(stderr).toMatch(message);
    expect(existsSync(bench.at('runs'))).toBe(false);
  });

  it('tells by its exit code whether trials failed, or only met no limit', async () => {
    const failed = (...codes: string[]) =>
      benchReport({ failed: codes.map((code) => ({ trial: 't', code, message: '' })) });
    const line = [...args, '--methods', 'idap'];
    expect((await asked(line, failed('infeasible'))).code).toBe(3);
    expect((await asked(line, failed('infeasible', 'internal'))).code).toBe(1);
  });

  it('combines the values of a sweep', () => {
    expect(crossed({})).toEqual([{}]);
    expect(crossed({ a: ['1', '2'], b: ['x'] })).toEqual([
      { a: '1', b: 'x' },
      { a: '2', b: 'x' },
    ]);
  });
});
