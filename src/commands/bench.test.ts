import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { FlowCompressError } from '../errors.js';
import { pruneReport } from '../testing/reports.js';
import { benchMethods, type BenchRequest, type BenchTrial } from './bench.js';

let folder = '';
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'flow-bench-'));
});
afterEach(() => rm(folder, { recursive: true }));

const trial = (method: string, seed: number, reduce = '0.5'): BenchTrial => ({
  ...{ model: 'nets/net.onnx', method, seed },
  options: { reduce },
});

/** Runs whose top-1 is told by the seed. */
function request(trials: readonly BenchTrial[], ran: BenchTrial[] = []): BenchRequest {
  return {
    ...{ of: 'prune', trials, folder, key: 'the same' },
    run: (one) => {
      ran.push(one);
      const report = pruneReport();
      const value = 0.9 - 0.01 * one.seed;
      return Promise.resolve({
        report: { ...report, after: { ...report.after, metric: { ...report.after.metric!, value } } },
      });
    },
  };
}

describe('comparing methods', () => {
  it('puts runs that differ in the seed alone into one row', async () => {
    const { report } = await benchMethods(request([trial('idap', 0), trial('idap', 2), trial('l1', 0)]));
    expect(report.rows.map(({ method, seeds }) => [method, seeds])).toEqual([
      ['idap', 2],
      ['l1', 1],
    ]);
    const { after } = report.rows[0]!.metric!;
    expect(after.mean).toBeCloseTo(0.89, 9);
    expect([after.least, after.most]).toEqual([0.88, 0.9]);
    expect(report.rows[0]!.macs!.mean).toBeCloseTo(pruneReport().after.macs! / pruneReport().before.macs!, 9);
  });

  it('makes no run twice, after an interrupt either', async () => {
    const ran: BenchTrial[] = [];
    await benchMethods(request([trial('idap', 0)], ran));
    const { report } = await benchMethods(request([trial('idap', 0), trial('idap', 0, '0.7')], ran));
    expect(ran).toHaveLength(2);
    expect(report.rows).toHaveLength(2);
    const stop = new AbortController();
    const interrupted: BenchRequest = {
      ...request([trial('idap', 0), trial('l1', 0), trial('l2', 0)], ran),
      run: (one) => {
        stop.abort();
        return request([], ran).run(one, '', {});
      },
    };
    await expect(benchMethods(interrupted, { signal: stop.signal })).rejects.toMatchObject({ code: 'aborted' });
    // What was done before is kept.
    expect(await readdir(folder)).toContain('net-l1-reduce-0.5-seed-0.json');
  });

  it('tells of methods that meet no limit, and goes on', async () => {
    const failing: BenchRequest = {
      ...request([trial('idap', 0), trial('l1', 0)]),
      run: (one, ...rest) =>
        one.method === 'l1'
          ? request([]).run(one, ...rest)
          : Promise.reject(new FlowCompressError('infeasible', 'Too deep.')),
    };
    const { report } = await benchMethods(failing);
    expect(report.rows.map(({ method }) => method)).toEqual(['l1']);
    expect(report.warnings).toEqual([expect.stringContaining('Too deep.')]);
  });

  it('refuses a folder of another comparison, and files that are no reports', async () => {
    await benchMethods(request([trial('idap', 0)]));
    await expect(benchMethods({ ...request([]), key: 'another' })).rejects.toMatchObject({ code: 'bad-input' });
    await writeFile(join(folder, 'net-idap-reduce-0.5-seed-0.json'), '{}');
    await expect(benchMethods(request([trial('idap', 0)]))).rejects.toMatchObject({ code: 'bad-input' });
  });
});
