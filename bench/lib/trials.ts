/** Comparisons of methods: trials of the command line whose reports are kept, so that an interrupted comparison goes on. */
import { existsSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseReport, type Report } from '../../src/report/report.js';
import { commandLine } from '../../src/testing/command-line.js';
import { note } from './places.js';

export interface Trial {
  /** Of the files that are kept. */
  readonly name: string;
  /** Of the command line, but for the output. */
  readonly args: readonly string[];
}

/** @param renderOnly leaves out what was not run yet @throws Error with what the command line said when it fails */
export async function reportsOf<T extends Trial>(
  trials: readonly T[],
  folder: string,
  renderOnly: boolean,
): Promise<{ trial: T; report: Report }[]> {
  await mkdir(folder, { recursive: true });
  const found: { trial: T; report: Report }[] = [];
  for (const trial of trials) {
    const path = join(folder, `${trial.name}.json`);
    if (!existsSync(path)) {
      if (renderOnly) continue;
      note(trial.name);
      const output = join(folder, `${trial.name}.onnx`);
      const { code, stdout, stderr } = await commandLine([...trial.args, '-o', output, '--force', '--json', '--quiet']);
      if (code !== 0 && code !== 3) throw new Error(`${trial.name}: ${stderr}`);
      await writeFile(path, stdout);
    }
    found.push({ trial, report: parseReport(JSON.parse(await readFile(path, 'utf8'))) });
  }
  return found;
}

export const list = (text: string): string[] => text.split(',').filter((part) => part !== '');

export const percent = (value: number | undefined): string =>
  value === undefined ? '' : `${(100 * value).toFixed(2)} %`;

/** Mean, and the largest less the smallest of several. */
export function spread(values: readonly (number | undefined)[]): string {
  const known = values.filter((value) => value !== undefined);
  if (known.length === 0) return '';
  const mean = known.reduce((a, b) => a + b, 0) / known.length;
  const width = known.length > 1 ? ` ±${(100 * (Math.max(...known) - Math.min(...known))).toFixed(2)}` : '';
  return `${percent(mean)}${width}`;
}
