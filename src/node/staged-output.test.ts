/** Outputs that are made beside their destination: what is there before, in between, after, and when something fails. */
import { spawnSync } from 'node:child_process';
import { mkdir, mkdtemp, readFile, readdir, readlink, realpath, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { writeFileAtomically } from './atomic-file.js';
import { stageOutput } from './staged-output.js';

let folder = '';
const at = (name: string): string => join(folder, name);
const text = (name: string): Promise<string> => readFile(at(name), 'utf8');

beforeEach(async () => {
  folder = await realpath(await mkdtemp(join(tmpdir(), 'staged-')));
});
afterEach(() => rm(folder, { recursive: true }));

function* failing(code: string): Generator<Uint8Array> {
  yield new Uint8Array(100);
  throw Object.assign(new Error(code), { code });
}

describe('a staged output', () => {
  it('has its own name while it is made and replaces the destination when it is published', async () => {
    await writeFile(at('out'), 'old');
    const staged = await stageOutput(at('out'), { force: true });
    await staged.make((path) => writeFile(path, 'new'));
    expect([basename(staged.path), await text('out')]).toEqual(['out', 'old']);
    await staged.publish([staged.path]);
    await staged.discard();
    expect([await readdir(folder), await text('out')]).toEqual([['out'], 'new']);
  });

  it('leaves nothing when it is discarded', async () => {
    const staged = await stageOutput(at('out'));
    await staged.make((path) => writeFile(path, 'new'));
    await staged.discard();
    expect(await readdir(folder)).toEqual([]);
  });

  it('publishes several files together or not at all', async () => {
    await writeFile(at('out'), 'old');
    await mkdir(at('out_data'));
    const staged = await stageOutput(at('out'), { force: true });
    const second = join(dirname(staged.path), 'out_data');
    await writeFile(staged.path, 'new');
    await writeFile(second, 'more');
    await expect(staged.publish([second, staged.path])).rejects.toThrow('it is a folder');
    expect(await text('out')).toBe('old');
    await rm(at('out_data'), { recursive: true });
    await staged.publish([second, staged.path]);
    await staged.discard();
    expect([await text('out'), await text('out_data')]).toEqual(['new', 'more']);
    expect((await readdir(folder)).sort()).toEqual(['out', 'out_data']);
  });

  it('goes where a link leads', async () => {
    await mkdir(at('far'));
    await writeFile(at('far/real'), 'old');
    await symlink(at('far/real'), at('out'));
    const staged = await stageOutput(at('out'), { force: true });
    await writeFile(staged.path, 'new');
    await staged.publish([staged.path]);
    await staged.discard();
    expect([await readlink(at('out')), await text('far/real')]).toEqual([at('far/real'), 'new']);
    expect(await readdir(at('far'))).toEqual(['real']);
  });

  it('does not replace what appeared in the meantime', async () => {
    const staged = await stageOutput(at('out'));
    await writeFile(staged.path, 'new');
    await writeFile(at('out'), 'theirs');
    await expect(staged.publish([staged.path])).rejects.toMatchObject({ code: 'bad-input', node: at('out') });
    await staged.discard();
    expect([await readdir(folder), await text('out')]).toEqual([['out'], 'theirs']);
  });

  it('on a full disk says so about the destination', async () => {
    const staged = await stageOutput(at('out'));
    const work = staged.make((path) => writeFileAtomically(path, failing('ENOSPC')));
    await expect(work).rejects.toMatchObject({
      code: 'io',
      node: at('out'),
      message: `${at('out')} cannot be written: the disk is full.`,
    });
    await staged.discard();
    expect(await readdir(folder)).toEqual([]);
  });

  it('is refused as a plain output is', async () => {
    await writeFile(at('out'), 'old');
    await expect(stageOutput(at('out'))).rejects.toMatchObject({ code: 'bad-input' });
    await expect(stageOutput(at('out/below'))).rejects.toMatchObject({ code: 'io' });
    await expect(stageOutput(at('out'), { force: true, inputs: [at('out')] })).rejects.toThrow(
      'same file as the input',
    );
    expect(await readdir(folder)).toEqual(['out']);
  });

  it('does not outlive a process that is told to exit', async () => {
    const module = new URL('./staged-output.ts', import.meta.url).href;
    const script = `
      const { stageOutput } = await import(${JSON.stringify(module)});
      const { writeFileSync, readdirSync } = await import('node:fs');
      const staged = await stageOutput(${JSON.stringify(at('out'))});
      writeFileSync(staged.path, 'new');
      console.log(readdirSync(${JSON.stringify(folder)}).length);
      process.exit(130);`;
    const child = spawnSync(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', script], {
      encoding: 'utf8',
    });
    expect([child.status, child.stdout]).toEqual([130, '1\n']);
    expect(await readdir(folder)).toEqual([]);
  });
});
