import { chmod, link, mkdir, mkdtemp, readFile, readdir, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { FlowCompressError } from '../errors.js';
import { assertWritableOutput, writeError, writeFileAtomically, writeFilesAtomically } from './atomic-file.js';

let folder: string;
const at = (name: string): string => join(folder, name);
const text = (name: string): Promise<string> => readFile(at(name), 'utf8');

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'atomic-'));
});
afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

async function refusal(work: Promise<unknown>): Promise<FlowCompressError> {
  try {
    await work;
  } catch (error) {
    if (error instanceof FlowCompressError) return error;
    throw error;
  }
  throw new Error('nothing was refused');
}

function* failing(code: string): Generator<Uint8Array> {
  yield new Uint8Array(100);
  throw Object.assign(new Error(code), { code });
}

describe('writeFileAtomically', () => {
  it('writes text, bytes and chunks', async () => {
    expect(await writeFileAtomically(at('a'), 'grün')).toBe(5);
    expect(await text('a')).toBe('grün');
    const chunks = Array.from({ length: 2000 }, (_, i) => new Uint8Array(i % 50).fill(i));
    expect(await writeFileAtomically(at('b'), chunks)).toBe(49_000);
    expect(Buffer.compare(await readFile(at('b')), Buffer.concat(chunks))).toBe(0);
    const large = new Uint8Array(40_000_000).map((_, i) => i);
    async function* later(): AsyncGenerator<Uint8Array> {
      yield large.subarray(0, 5);
      yield large.subarray(5);
    }
    await writeFileAtomically(at('c'), later());
    expect(Buffer.compare(await readFile(at('c')), large)).toBe(0);
    expect(await readdir(folder)).toEqual(['a', 'b', 'c']);
  });

  it('replaces a file only with force, and keeps its mode', async () => {
    await writeFile(at('a'), 'old');
    await chmod(at('a'), 0o640);
    const error = await refusal(writeFileAtomically(at('a'), 'new'));
    expect(error).toMatchObject({ code: 'bad-input' });
    expect(error.hint).toContain('--force');
    expect(await text('a')).toBe('old');
    await writeFileAtomically(at('a'), 'new', { force: true });
    expect(await text('a')).toBe('new');
    expect((await stat(at('a'))).mode & 0o777).toBe(0o640);
    expect(await readdir(folder)).toEqual(['a']);
  });

  it('does not replace a file that appears while it writes', async () => {
    async function* slow(): AsyncGenerator<Uint8Array> {
      yield new Uint8Array(3);
      await writeFile(at('a'), 'theirs');
    }
    expect((await refusal(writeFileAtomically(at('a'), slow()))).code).toBe('bad-input');
    expect(await text('a')).toBe('theirs');
    expect(await readdir(folder)).toEqual(['a']);
  });

  it.each([false, true])('leaves nothing after a failure (existing file: %s)', async (exists) => {
    if (exists) await writeFile(at('a'), 'old');
    const error = await refusal(writeFileAtomically(at('a'), failing('ENOSPC'), { force: true }));
    expect(error).toMatchObject({ code: 'io' });
    expect(error.message).toContain('disk is full');
    expect(await readdir(folder)).toEqual(exists ? ['a'] : []);
    if (exists) expect(await text('a')).toBe('old');
  });

  it('leaves nothing after an abort', async () => {
    const controller = new AbortController();
    function* chunks(): Generator<Uint8Array> {
      yield new Uint8Array(20_000_000);
      controller.abort();
      yield new Uint8Array(20_000_000);
    }
    expect((await refusal(writeFileAtomically(at('a'), chunks(), { signal: controller.signal }))).code).toBe('aborted');
    expect(await readdir(folder)).toEqual([]);
  });

  it('writes through a symbolic link and leaves it a link', async () => {
    await mkdir(at('real'));
    await writeFile(at('real/a'), 'old');
    await symlink(at('real/a'), at('a'));
    await writeFileAtomically(at('a'), 'new', { force: true });
    expect(await text('real/a')).toBe('new');
  });
});

describe('writeFilesAtomically', () => {
  it('changes all files or none', async () => {
    await writeFile(at('a'), 'old a');
    await writeFile(at('b'), 'old b');
    const files = [
      { path: at('a'), content: 'new a' },
      { path: at('b'), content: failing('EIO') },
    ];
    expect((await refusal(writeFilesAtomically(files, { force: true }))).node).toBe(at('b'));
    expect([await text('a'), await text('b')]).toEqual(['old a', 'old b']);
    const sizes = await writeFilesAtomically([files[0], { path: at('b'), content: 'new b!' }], { force: true });
    expect(sizes).toEqual([5, 6]);
    expect([await text('a'), await text('b')]).toEqual(['new a', 'new b!']);
    expect(await readdir(folder)).toEqual(['a', 'b']);
  });

  it('restores the first file when the second cannot be put in place', async () => {
    await writeFile(at('a'), 'old a');
    async function* blocking(): AsyncGenerator<Uint8Array> {
      yield new Uint8Array(3);
      await mkdir(at('b'));
      await writeFile(at('b/inside'), '');
    }
    const files = [
      { path: at('a'), content: 'new a' },
      { path: at('b'), content: blocking() },
    ];
    expect((await refusal(writeFilesAtomically(files, { force: true }))).code).toBe('io');
    expect(await text('a')).toBe('old a');
    expect((await readdir(folder)).sort()).toEqual(['a', 'b']);
  });
});

describe('assertWritableOutput', () => {
  it('accepts a new file and creates nothing', async () => {
    await assertWritableOutput(at('new.onnx'), { inputs: [at('missing')] });
    expect(await readdir(folder)).toEqual([]);
  });

  it('refuses the input under any of its names, even with force', async () => {
    await writeFile(at('in'), 'x');
    await symlink(at('in'), at('soft'));
    await link(at('in'), at('hard'));
    for (const name of ['in', 'soft', 'hard']) {
      const error = await refusal(assertWritableOutput(at(name), { force: true, inputs: [at('in')] }));
      expect(error).toMatchObject({ code: 'bad-input' });
      expect(error.message).toContain('same file');
    }
  });

  it('refuses folders, missing folders and dangling links by name', async () => {
    await mkdir(at('dir'));
    await writeFile(at('file'), '');
    await symlink(at('gone'), at('dangling'));
    expect((await refusal(assertWritableOutput(at('dir'), { force: true }))).message).toContain('is a folder');
    expect((await refusal(assertWritableOutput(at('no/a')))).hint).toContain('Create the folder');
    expect((await refusal(assertWritableOutput(at('file/a')))).code).toBe('io');
    expect((await refusal(assertWritableOutput(at('dangling')))).message).toContain('exists');
    expect(await refusal(assertWritableOutput(''))).toMatchObject({ code: 'bad-input' });
    expect((await refusal(assertWritableOutput(at('x'.repeat(300))))).message).toContain('too long');
    if (process.platform !== 'win32') {
      expect((await refusal(assertWritableOutput('/dev/null', { force: true }))).message).toContain('regular file');
    }
  });

  it.skipIf(process.getuid?.() === 0 || process.platform === 'win32')(
    'refuses a folder that is not writable',
    async () => {
      await mkdir(at('locked'), { mode: 0o500 });
      expect((await refusal(assertWritableOutput(at('locked/a')))).message).toContain('not writable');
    },
  );

  it('keeps the message of unknown failures', () => {
    expect(writeError('p', new Error('odd')).message).toContain('odd');
  });
});
