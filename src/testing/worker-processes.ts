/** Real worker processes that are killed at random while they share the trials of a folder. */
import { spawn, type ChildProcess } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { SweepFolder } from '../experiments/sweep-folder.js';

const SCRIPT = fileURLToPath(new URL('./sweep-worker.ts', import.meta.url));

export interface Crew {
  readonly members: readonly ChildProcess[];
  /** Kills one at random, without a word, and hires another. */
  replaceOne(): void;
  /** Exit codes once all have gone home; null for the killed. */
  ended(): Promise<(number | null)[]>;
  dismiss(): void;
}

/** Starts `count` workers whose trials take about `ms` milliseconds. */
export function startWorkers(path: string, count: number, ms: number, queue?: string): Crew {
  const all: ChildProcess[] = [];
  const hire = (): void => {
    const args = ['--import', 'tsx', SCRIPT, path, String(ms), ...(queue === undefined ? [] : [queue])];
    all.push(spawn(process.execPath, args, { stdio: ['ignore', 'inherit', 'pipe'] }));
  };
  for (let i = 0; i < count; i++) hire();
  const alive = (): ChildProcess[] =>
    all.filter(({ exitCode, signalCode }) => exitCode === null && signalCode === null);
  return {
    members: all,
    replaceOne() {
      const now = alive();
      now[Math.floor(Math.random() * now.length)]?.kill('SIGKILL');
      hire();
    },
    ended: () =>
      Promise.all(
        all.map(
          (one) =>
            new Promise<number | null>((resolve) => {
              if (one.exitCode !== null || one.signalCode !== null) resolve(one.exitCode);
              else one.once('exit', resolve);
            }),
        ),
      ),
    dismiss() {
      for (const one of alive()) one.kill('SIGKILL');
    },
  };
}

/** How often each trial was begun, and how often a worker was told that its result counts. */
export async function tally(
  folder: SweepFolder,
): Promise<{ begun: Map<string, number>; counted: Map<string, number> }> {
  const count = async (name: string): Promise<Map<string, number>> => {
    const text = await readFile(join(folder.path, 'trials', name), 'utf8').catch(() => '');
    const times = new Map<string, number>();
    for (const line of text.split('\n').filter((one) => one !== '')) {
      const [id = ''] = line.split(' ');
      times.set(id, (times.get(id) ?? 0) + 1);
    }
    return times;
  };
  return { begun: await count('begun'), counted: await count('settled') };
}
