/** Temporary folders, and that the engine leaves none of its own. */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { toBytes } from '../onnx/to-bytes.js';
import { tinyResNet } from '../testing/tiny-models.js';
import { withTemporaryFolder } from './temporary-folder.js';

let folder = '';
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'temporary-'));
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await rm(folder, { recursive: true });
});

describe('withTemporaryFolder', () => {
  it('removes the folder after the work, also after a failure', async () => {
    const seen: string[] = [];
    const fill = async (path: string): Promise<number> => {
      seen.push(path);
      await writeFile(join(path, 'x'), 'y');
      return 7;
    };
    expect(await withTemporaryFolder(fill)).toBe(7);
    const failed = withTemporaryFolder(async (path) => {
      await fill(path);
      throw new Error('no');
    });
    await expect(failed).rejects.toThrow('no');
    expect(seen.map(existsSync)).toEqual([false, false]);
  });

  it('says what to do when there is no place for it', async () => {
    vi.stubEnv('TMPDIR', join(folder, 'gone'));
    await expect(withTemporaryFolder(async () => 1)).rejects.toMatchObject({
      code: 'io',
      hint: 'Set TMPDIR to a folder that can be written to.',
    });
  });
});

describe('the engine', () => {
  it('leaves no files and sends no telemetry', async () => {
    const model = join(folder, 'model.onnx');
    await writeFile(model, toBytes(tinyResNet()));
    const module = new URL('./onnxruntime.ts', import.meta.url).href;
    const script = `
      const { nodeEngine } = await import(${JSON.stringify(module)});
      const session = await nodeEngine().createSession(${JSON.stringify(model)});
      await session.release();
      console.log(process.env.ORT_DISABLE_TELEMETRY);`;
    const env = { ...process.env, TMPDIR: folder, XDG_CACHE_HOME: join(folder, 'cache'), TSX_DISABLE_CACHE: '1' };
    Reflect.deleteProperty(env, 'ORT_DISABLE_TELEMETRY');
    const child = spawnSync(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', script], {
      encoding: 'utf8',
      env,
    });
    expect(child.stdout).toBe('1\n');
    expect((await readdir(folder)).filter((name) => !name.startsWith('tsx'))).toEqual(['model.onnx']);
  });
});
