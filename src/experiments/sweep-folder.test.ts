import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { doneTrial, failedTrial, planned, trialsOf, VERSION } from '../testing/sweeps.js';
import { openSweepFolder } from './sweep-folder.js';

let path = '';
beforeEach(async () => {
  path = join(await mkdtemp(join(tmpdir(), 'flow-sweep-')), 'run');
});
afterEach(() => rm(join(path, '..'), { recursive: true }));

describe('the run directory of a sweep', () => {
  it('keeps one result per trial, which no other and no error replaces', async () => {
    const folder = await planned(path, 2);
    const [first, second] = trialsOf(2);
    expect(await folder.settle(doneTrial(first!, 'fast'))).toBe(true);
    expect(await folder.settle(doneTrial(first!, 'slow'))).toBe(false);
    expect(await folder.settle(failedTrial(first!))).toBe(false);
    expect((await folder.outcomes()).get(first!.id)?.worker).toBe('fast');
    // A result outweighs an error.
    expect(await folder.settle(failedTrial(second!))).toBe(true);
    expect((await folder.settled()).failed).toEqual(new Set([second!.id]));
    expect(await folder.settle(doneTrial(second!))).toBe(true);
    expect(await folder.settled()).toEqual({ done: new Set([first!.id, second!.id]), failed: new Set() });
  });

  it('lets exactly one of many results of a trial in', async () => {
    const folder = await planned(path, 1);
    const [trial] = trialsOf(1);
    const won = await Promise.all(
      Array.from({ length: 30 }, (_, i) => folder.settle(doneTrial(trial!, `worker-${String(i)}`))),
    );
    expect(won.filter(Boolean)).toHaveLength(1);
    expect((await folder.outcomes()).get(trial!.id)?.worker).toBe(`worker-${String(won.indexOf(true))}`);
  });

  it('forgets errors alone when failed trials are to be run again', async () => {
    const folder = await planned(path, 2);
    const [first, second] = trialsOf(2);
    await folder.settle(doneTrial(first!));
    await folder.settle(failedTrial(second!));
    expect(await folder.retryFailed()).toBe(1);
    expect(await folder.settled()).toEqual({ done: new Set([first!.id]), failed: new Set() });
  });

  it('grows, and keeps the settings that its trials were begun with', async () => {
    await planned(path, 2, 60, { threads: 3 });
    const folder = await planned(path, 4, 7, { threads: 1 });
    const plan = await folder.plan();
    expect(plan.trials).toHaveLength(4);
    expect(plan).toMatchObject({ threads: 3, lease: 60 });
  });

  it('is planned once by many at the same time', async () => {
    const folders = await Promise.all(Array.from({ length: 8 }, () => planned(path, 3)));
    const names = await Promise.all(folders.map(async (folder) => (await folder.plan()).queue));
    expect(new Set(names).size).toBe(1);
  });

  it('refuses other sweeps, other versions, other files and folders of something else', async () => {
    await expect(openSweepFolder(path, VERSION)).rejects.toMatchObject({ code: 'bad-input' });
    await planned(path, 3, 60, { inputs: { '/a.npz': 'aa' } });
    const refused = async (work: Promise<unknown>, message: RegExp): Promise<void> => {
      await expect(work).rejects.toMatchObject({
        code: 'bad-input',
        message: expect.stringMatching(message) as string,
      });
    };
    await refused(planned(path, 2), /another sweep: 1 of its 3 trials/);
    await refused(
      planned(path, 3, 60, { commands: { compress: { writes: true, resumes: true } } }),
      /of prune, not of compress/,
    );
    await refused(planned(path, 3, 60, { inputs: { '/a.npz': 'bb' } }), /\/a\.npz has changed/);
    await refused(planned(path, 3, 60, { version: '9.9.9' }), /begun with flow-compress 0\.0\.0; this is 9\.9\.9/);
    await refused(openSweepFolder(path, '9.9.9'), /begun with flow-compress 0\.0\.0; this is 9\.9\.9/);
    const plan = await readFile(join(path, 'sweep.json'), 'utf8');
    await writeFile(join(path, 'sweep.json'), plan.slice(0, 80));
    await refused(openSweepFolder(path, VERSION), /sweep\.json is damaged/);
    const other = join(path, '..', 'other');
    await mkdir(other);
    await writeFile(join(other, 'settings.json'), '{}');
    await refused(planned(other, 1), /something else already \(settings\.json\)/);
    await refused(planned(join(other, 'settings.json'), 1), /it is a file/);
  });

  it('names a damaged result, whose trial is run again once it is removed', async () => {
    const folder = await planned(path, 1);
    const [trial] = trialsOf(1);
    const file = join(path, 'done', `${trial!.id}.json`);
    await writeFile(file, '{}');
    await expect(folder.outcomes()).rejects.toMatchObject({ code: 'bad-input', node: file });
  });
});
