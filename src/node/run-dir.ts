/**
 * The run directory (`--run-dir`): what a long run leaves on disk so that an interrupted one can go on (`--resume`).
 *
 * - `settings.json`: the command, its settings, and fingerprints of the model and the data;
 * - `state.json`: what was measured, rewritten whole after every expensive step;
 * - `report.json`: the report of the finished run;
 * - `log.jsonl`: a line per stage, as it begins.
 */
import { appendFile, mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { FlowCompressError, messageOf, throwIfAborted } from '../errors.js';
import type { OnProgress } from '../progress.js';
import type { MachineCache } from '../runtime/machine-cache.js';
import type { DivergencePoint } from '../quantization/divergence-model.js';
import type { DivergenceRecord } from '../quantization/measure-divergence.js';
import { reportToJson } from '../report/json.js';
import { reportSchema, type Report } from '../report/report.js';
import { writeError, writeFileAtomically } from './atomic-file.js';
import { errorCode } from './error-code.js';
import { fingerprint } from './fingerprint.js';

/** What a run depends on. */
export interface RunIdentity {
  readonly command: Report['command'];
  /** Options as plain data; a run goes on only with equal ones. */
  readonly settings: Readonly<Record<string, unknown>>;
  /** Files, folders and bytes that are read, by what messages call them. */
  readonly inputs: Readonly<Record<string, string | Uint8Array>>;
}

export interface RunDirectory {
  readonly divergences: DivergenceRecord;
  /** What the run measured of the machine: a choice that hangs on it is made once. */
  readonly cache: MachineCache;
  /** The report of the run, if it was finished, and the fingerprint of the output that it wrote. */
  readonly finished?: { readonly report: Report; readonly output?: string };
  /** Writes a line of the log when a stage begins. */
  readonly onProgress: OnProgress;
  /** Keeps the report of the finished run. @param output the file that the run wrote */
  finish(report: Report, output?: string): Promise<void>;
}

const FILES = { settings: 'settings.json', state: 'state.json', report: 'report.json', log: 'log.jsonl' } as const;

const settingsSchema = z.object({
  command: z.string(),
  settings: z.record(z.string(), z.unknown()),
  inputs: z.record(z.string(), z.string()),
});
type Settings = z.output<typeof settingsSchema>;

const stateSchema = z.object({
  divergences: z.record(z.string(), z.array(z.object({ bits: z.number(), error: z.number(), divergence: z.number() }))),
  cache: z.record(z.string(), z.string()).optional(),
  output: z.string().optional(),
});
type State = z.output<typeof stateSchema>;

/**
 * Opens the directory of a run, which is made if it does not exist.
 * @param resume go on with the run in it; one that left nothing yet is begun
 * @throws FlowCompressError `bad-input` when it holds a run and `resume` is false, when the run in it has other settings,
 *   or when its files are damaged; `io` when it cannot be read or written; `aborted`
 */
export async function openRunDirectory(
  path: string,
  identity: RunIdentity,
  options: { resume: boolean; signal?: AbortSignal },
): Promise<RunDirectory> {
  const at = (name: keyof typeof FILES): string => join(path, FILES[name]);
  const save = (name: keyof typeof FILES, text: string): Promise<number> =>
    writeFileAtomically(at(name), text, { force: true });
  const current = await describe(identity, options.signal);
  await mkdir(path, { recursive: true }).catch((error: unknown) => {
    if (errorCode(error) !== 'EEXIST') throw writeError(path, error);
    throw new FlowCompressError('bad-input', `${path} is a file: a run directory is a folder.`, {
      node: path,
      hint: 'Give --run-dir the name of a folder; it is made if it does not exist.',
    });
  });
  const earlier = await readJson(at('settings'), settingsSchema);
  if (earlier !== undefined && !options.resume) {
    throw new FlowCompressError('bad-input', `${path} holds a run already.`, {
      node: path,
      hint: 'Add --resume to continue it, or give another --run-dir.',
    });
  }
  if (earlier === undefined) await save('settings', `${JSON.stringify(current, null, 2)}\n`);
  else refuseOther(earlier, current, path);

  const state: State = (await readJson(at('state'), stateSchema)) ?? { divergences: {} };
  const divergences = new Map<string, readonly DivergencePoint[]>(Object.entries(state.divergences));
  const cache = new Map(Object.entries(state.cache ?? {}));
  let { output: outputPrint } = state;
  const report = await readJson(at('report'), reportSchema);
  const stateNow = (): State => ({
    divergences: Object.fromEntries(divergences) as State['divergences'],
    cache: Object.fromEntries(cache),
    output: outputPrint,
  });
  const saveState = (): Promise<number> => save('state', `${JSON.stringify(stateNow())}\n`);
  return {
    divergences: {
      known: divergences,
      async keep(measured) {
        for (const [layer, points] of measured) if (points.every(isFinitePoint)) divergences.set(layer, points);
        await saveState();
      },
    },
    cache: {
      read: (key) => Promise.resolve(cache.get(key)),
      async write(key, text) {
        cache.set(key, text);
        await saveState();
      },
    },
    ...(report && { finished: { report, ...(outputPrint !== undefined && { output: outputPrint }) } }),
    onProgress: stageLog(at('log')),
    async finish(finished, output) {
      if (output !== undefined) outputPrint = await fingerprint(output);
      await saveState();
      await save('report', reportToJson(finished));
    },
  };
}

/** JSON has no NaN: a layer that gave one is measured again. */
function isFinitePoint({ error, divergence }: DivergencePoint): boolean {
  return Number.isFinite(error) && Number.isFinite(divergence);
}

async function describe({ command, settings, inputs }: RunIdentity, signal?: AbortSignal): Promise<Settings> {
  const prints: Record<string, string> = {};
  for (const [name, source] of Object.entries(inputs)) {
    throwIfAborted(signal);
    prints[name] = await fingerprint(source, signal);
  }
  // As it will come back from the file: without undefined, in any order.
  return settingsSchema.parse(JSON.parse(JSON.stringify({ command, settings, inputs: prints })));
}

function refuseOther(earlier: Settings, current: Settings, path: string): void {
  const refuse = (what: string): FlowCompressError =>
    new FlowCompressError('bad-input', `The run in ${path} cannot be continued: ${what}.`, {
      node: path,
      hint: 'Repeat the command as it was, or give another --run-dir.',
    });
  if (earlier.command !== current.command) throw refuse(`it is a run of ${earlier.command}, not of ${current.command}`);
  for (const name of keysOf(earlier.settings, current.settings)) {
    const [was, is] = [earlier.settings, current.settings].map((settings) => JSON.stringify(settings[name]));
    if (was !== is) throw refuse(`${name} was ${was ?? 'not given'} and is ${is ?? 'not given'} now`);
  }
  for (const name of keysOf(earlier.inputs, current.inputs)) {
    if (earlier.inputs[name] !== current.inputs[name]) throw refuse(`the ${name} has changed since then`);
  }
}

function keysOf(a: object, b: object): Set<string> {
  return new Set([...Object.keys(a), ...Object.keys(b)]);
}

/** The checked contents of a JSON file; undefined when there is none. */
async function readJson<T>(path: string, schema: z.ZodType<T>): Promise<T | undefined> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return undefined;
    throw new FlowCompressError('io', `${path} cannot be read: ${messageOf(error)}`, {
      node: path,
      hint: 'Check the permissions of the run directory.',
      cause: error,
    });
  }
  try {
    return schema.parse(JSON.parse(text));
  } catch (error) {
    throw new FlowCompressError('bad-input', `${path} is damaged or of another version of Flow Compress.`, {
      node: path,
      hint: 'Give another --run-dir to start again.',
      cause: error,
    });
  }
}

/** Lines are appended one after another; a log that cannot be written stops no run. */
function stageLog(path: string): OnProgress {
  let stage: string | undefined;
  let last: Promise<void> = Promise.resolve();
  return (event) => {
    if (event.stage === stage) return;
    stage = event.stage;
    const line = `${JSON.stringify({ time: new Date().toISOString(), stage, total: event.total })}\n`;
    last = last.then(() => appendFile(path, line)).catch(() => undefined);
  };
}
