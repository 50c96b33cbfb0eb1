import { describe, expect, it } from 'vitest';
import type { BenchRequest } from '../commands/bench.js';
import { commandLine } from '../testing/command-line.js';
import { benchReport, pruneReport } from '../testing/reports.js';
import { library } from './library.js';
import { combinations } from './bench.js';

const ARGS = ['bench', 'prune', 'a.onnx', 'b.onnx', '--data', 'd.npz', '--folder', 'runs'];

/** What the command asks the library for. */
async function asked(args: readonly string[]): Promise<{ request?: BenchRequest; code: number; stderr: string }> {
  let request: BenchRequest | undefined;
  const { code, stderr } = await commandLine(args, {
    library: {
      ...library,
      benchMethods: (given) => {
        request = given;
        return Promise.resolve({ report: benchReport() });
      },
      pruneModel: (model, { method, seed, reduce, output }) =>
        Promise.resolve({ report: pruneReport({ model, method, seed, output, settings: { reduce: reduce ?? 0 } }) }),
    },
  });
  return { ...(request && { request }), code, stderr };
}

describe('flow-compress bench', () => {
  it('makes a run of every model, method, combination and seed', async () => {
    const { request, code } = await asked([
      ...ARGS,
      '--methods',
      'idap,l1',
      '--seeds',
      '0,3',
      '--vary',
      'reduce=0.5,0.7',
    ]);
    expect(code).toBe(0);
    expect(request!.trials).toHaveLength(16);
    expect(request!.trials.at(-1)).toEqual({ model: 'b.onnx', method: 'l1', options: { reduce: '0.7' }, seed: 3 });
    const { report } = await request!.run(request!.trials.at(-1)!, 'runs/x.onnx', {});
    expect(report).toMatchObject({
      model: 'b.onnx',
      method: 'l1',
      seed: 3,
      output: 'runs/x.onnx',
      settings: { reduce: 0.7 },
    });
  });

  it.each([
    [['--methods', 'idap', '--vary', 'reduce'], /name=value/],
    [['--methods', 'idap', '--seeds', 'one'], /whole number/],
    [[], /--methods is missing/],
  ])('refuses %j with a hint', async (more, message) => {
    const { code, stderr } = await asked([...ARGS, ...more]);
    expect(code).toBe(2);
    expect(stderr).toMatch(message);
  });

  it('names an option of a sweep that the command does not have', async () => {
    const { request } = await asked([...ARGS, '--methods', 'idap', '--vary', 'bits=3']);
    await expect(async () => request!.run(request!.trials[0]!, 'x', {})).rejects.toMatchObject({ code: 'bad-input' });
  });

  it('combines the values of a sweep', () => {
    expect(combinations('')).toEqual([{}]);
    expect(combinations('a=1,2 --b=x')).toEqual([
      { a: '1', b: 'x' },
      { a: '2', b: 'x' },
    ]);
  });
});
