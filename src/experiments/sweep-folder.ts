/**
 * The run directory of a sweep, which workers share: on one machine, or on several over a shared folder.
 *
 * - `sweep.json`: the plan, with every trial;
 * - `done/` and `failed/`: a file per trial with its report or its error, which appears whole and once;
 * - `trials/<name>/`: what a trial writes: its model, and its own run directory, in which an interrupted trial goes on;
 * - `leases/`: which worker has which trial, where the folder itself is the queue.
 */
import { randomUUID } from 'node:crypto';
import { mkdir, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { FlowCompressError, messageOf } from '../errors.js';
import { writeError, writeFileAtomically } from '../node/atomic-file.js';
import { errorCode } from '../node/error-code.js';
import { reportSchema } from '../report/report.js';
import { SWEPT_COMMANDS, trialSchema } from './trial.js';
import type { Trial } from './trial.js';

const planSchema = z.object({
  /** Changes when folders of one version cannot be read by another. */
  format: z.literal(2),
  /** Of the flow-compress that made it: others must not mix their results in. */
  version: z.string(),
  /** Tells queues of different sweeps on one server apart. */
  queue: z.string(),
  /** The commands of the trials: whether each has an output and a run directory of its own. */
  commands: z.partialRecord(z.enum(SWEPT_COMMANDS), z.object({ writes: z.boolean(), resumes: z.boolean() })),
  /** Threads of a trial that does not say: the same on all machines, so that any of them can take up any trial. */
  threads: z.number().int().min(1).optional(),
  /** Seconds after which a silent worker counts as lost. */
  lease: z.number().positive(),
  /** Fingerprints of the files that are read, by path. */
  inputs: z.record(z.string(), z.string()),
  trials: z.array(trialSchema).min(1),
});
export type SweepPlan = z.infer<typeof planSchema>;

/** How a trial ran, whatever came of it. */
const ranSchema = z.object({
  id: z.string(),
  worker: z.string(),
  /** Wall time of the last attempt. */
  seconds: z.number().nonnegative(),
  /** Attempts whose worker was lost. */
  lost: z.number().int().nonnegative(),
});
const doneSchema = ranSchema.extend({ report: reportSchema });
const failedSchema = ranSchema.extend({
  error: z.object({ code: z.string(), message: z.string(), hint: z.string().optional() }),
});
export type DoneTrial = z.infer<typeof doneSchema>;
export type FailedTrial = z.infer<typeof failedSchema>;
export type TrialOutcome = DoneTrial | FailedTrial;

export interface SweepFolder {
  readonly path: string;
  /** The plan as it is on disk now: it may have grown. */
  plan(): Promise<SweepPlan>;
  /** Ids of the trials with a result, or with an error. */
  settled(): Promise<{ readonly done: ReadonlySet<string>; readonly failed: ReadonlySet<string> }>;
  /** Keeps what came of a trial. @returns false when it had a result already: that one stays */
  settle(outcome: TrialOutcome): Promise<boolean>;
  /** Everything that is known, by id of the trial. */
  outcomes(): Promise<ReadonlyMap<string, TrialOutcome>>;
  /** Forgets errors, so that their trials are run again. @returns how many */
  retryFailed(): Promise<number>;
  /** The trial's own folder, which is made. */
  trialFolder(trial: Trial): Promise<string>;
  /** Where a trial of that name writes its model. */
  modelOf(name: string): string;
}

const PLAN = 'sweep.json';
const folders = ['done', 'failed', 'trials', 'leases'] as const;

/**
 * Opens the run directory of a sweep.
 * @throws FlowCompressError `bad-input` when there is no sweep in it, its plan is damaged or of another version; `io`
 */
export async function openSweepFolder(path: string, version: string): Promise<SweepFolder> {
  const plan = await readPlan(path);
  if (plan === undefined)
    throw new FlowCompressError('bad-input', `${path} has no sweep in it.`, {
      node: path,
      hint: 'Plan one with `flow-compress sweep FILE --run-dir DIR`.',
    });
  refuseVersion(plan, path, version);
  return folderAt(path, version);
}

/**
 * Makes the run directory of a sweep, or opens the one that is there. A plan may grow: what is done already is kept.
 * @throws FlowCompressError `bad-input` when the folder holds something else, another sweep, one of other files or of another
 *   version; `io`
 */
export async function planSweepFolder(path: string, plan: Omit<SweepPlan, 'format' | 'queue'>): Promise<SweepFolder> {
  const earlier = await readPlan(path);
  if (earlier === undefined) {
    await refuseForeign(path);
    for (const name of folders)
      await mkdir(join(path, name), { recursive: true }).catch((error: unknown) => {
        throw writeError(path, error);
      });
    const whole: SweepPlan = { format: 2, queue: randomUUID(), ...plan };
    const isFirst = await createFile(join(path, PLAN), textOf(whole));
    // Somebody else has planned it at the same time: held against theirs like any other.
    return isFirst ? folderAt(path, plan.version) : planSweepFolder(path, plan);
  }
  refuseVersion(earlier, path, plan.version);
  refuseOther(earlier, plan, path);
  if (earlier.trials.length < plan.trials.length) {
    // Trials that were begun go on under the settings that they were begun with.
    const { trials, inputs, commands } = plan;
    await writeFileAtomically(join(path, PLAN), textOf({ ...earlier, trials, inputs, commands }), { force: true });
  }
  return folderAt(path, plan.version);
}

function textOf(plan: SweepPlan): string {
  return `${JSON.stringify(plan, null, 1)}\n`;
}

function folderAt(path: string, version: string): SweepFolder {
  const at = (kind: 'done' | 'failed', id: string): string => join(path, kind, `${id}.json`);
  const idsOf = async (kind: 'done' | 'failed'): Promise<string[]> =>
    (await list(join(path, kind))).filter((name) => /^\w+\.json$/.test(name)).map((name) => name.slice(0, -5));
  let known: { text: string; plan: SweepPlan } | undefined;
  return {
    path,
    async plan() {
      const text = await readPlanText(path);
      if (known?.text !== text) {
        const plan = parsePlan(text, path);
        refuseVersion(plan, path, version);
        known = { text, plan };
      }
      return known.plan;
    },
    async settled() {
      const done = new Set(await idsOf('done'));
      return { done, failed: new Set((await idsOf('failed')).filter((id) => !done.has(id))) };
    },
    async settle(outcome) {
      const isDone = 'report' in outcome;
      if (!isDone && (await exists(at('done', outcome.id)))) return false;
      const isFirst = await createFile(at(isDone ? 'done' : 'failed', outcome.id), `${JSON.stringify(outcome)}\n`);
      // A result outweighs an error of an earlier attempt.
      if (isDone) await rm(at('failed', outcome.id), { force: true });
      return isFirst;
    },
    async outcomes() {
      const { done, failed } = await this.settled();
      const found = new Map<string, TrialOutcome>();
      for (const id of done) found.set(id, await readOutcome(at('done', id), doneSchema));
      for (const id of failed) {
        const outcome = await readOutcome(at('failed', id), failedSchema).catch((error: unknown) => {
          if (errorCode((error as Error).cause) !== 'ENOENT') throw error;
          return undefined;
        });
        if (outcome) found.set(id, outcome);
      }
      return found;
    },
    async retryFailed() {
      const { failed } = await this.settled();
      for (const id of failed) await rm(at('failed', id), { force: true });
      return failed.size;
    },
    async trialFolder({ name }) {
      const folder = join(path, 'trials', name);
      await mkdir(folder, { recursive: true }).catch((error: unknown) => {
        throw writeError(folder, error);
      });
      return folder;
    },
    modelOf: (name) => join(path, 'trials', name, 'model.onnx'),
  };
}

/**
 * Makes a file that nobody else has made: of several at once exactly one succeeds, over NFS too. It appears whole.
 * @returns whether it was this call
 * @throws FlowCompressError `io` when it cannot be written
 */
async function createFile(path: string, text: string): Promise<boolean> {
  try {
    await writeFileAtomically(path, text);
    return true;
  } catch (error) {
    if (error instanceof FlowCompressError && error.code === 'bad-input') return false;
    throw error;
  }
}

/** Names in a folder. @throws FlowCompressError `io` */
export async function list(path: string): Promise<string[]> {
  try {
    return await readdir(path);
  } catch (error) {
    throw unreadable(path, error);
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await readFile(path);
    return true;
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return false;
    throw unreadable(path, error);
  }
}

function unreadable(path: string, error: unknown): FlowCompressError {
  return new FlowCompressError('io', `${path} cannot be read: ${messageOf(error)}`, {
    node: path,
    hint: 'Check that the run directory is there and may be read; nothing of it is lost.',
    cause: error,
  });
}

async function readPlanText(path: string): Promise<string> {
  try {
    return await readFile(join(path, PLAN), 'utf8');
  } catch (error) {
    throw unreadable(join(path, PLAN), error);
  }
}

async function readPlan(path: string): Promise<SweepPlan | undefined> {
  try {
    return parsePlan(await readPlanText(path), path);
  } catch (error) {
    const code = error instanceof FlowCompressError ? errorCode(error.cause) : undefined;
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw error;
  }
}

function parsePlan(text: string, path: string): SweepPlan {
  try {
    return planSchema.parse(JSON.parse(text));
  } catch (error) {
    throw new FlowCompressError('bad-input', `${join(path, PLAN)} is damaged or of another version of Flow Compress.`, {
      node: path,
      hint: 'Give another --run-dir to start again.',
      cause: error,
    });
  }
}

async function readOutcome<T>(path: string, schema: z.ZodType<T>): Promise<T> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    throw unreadable(path, error);
  }
  try {
    return schema.parse(JSON.parse(text));
  } catch (error) {
    throw new FlowCompressError('bad-input', `${path} is not the result of a trial: ${messageOf(error)}`, {
      node: path,
      hint: 'Remove the file: its trial is run again.',
      cause: error,
    });
  }
}

async function refuseForeign(path: string): Promise<void> {
  let names: string[];
  try {
    names = await readdir(path);
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return;
    throw new FlowCompressError(
      errorCode(error) === 'ENOTDIR' ? 'bad-input' : 'io',
      `${path} cannot be the run directory of a sweep: ${errorCode(error) === 'ENOTDIR' ? 'it is a file' : messageOf(error)}.`,
      { node: path, hint: 'Give the name of a folder; it is made if it does not exist.', cause: error },
    );
  }
  const strange = names.filter((name) => !(folders as readonly string[]).includes(name) && !name.startsWith('.'));
  if (strange.length === 0) return;
  throw new FlowCompressError('bad-input', `${path} holds something else already (${strange[0] ?? ''}).`, {
    node: path,
    hint: 'A sweep needs a run directory of its own.',
  });
}

function refuseVersion(plan: SweepPlan, path: string, version: string): void {
  if (plan.version === version) return;
  throw new FlowCompressError(
    'bad-input',
    `The sweep in ${path} was begun with flow-compress ${plan.version}; this is ${version}.`,
    {
      node: path,
      hint: `Results of two versions are not comparable: work on it with ${plan.version}, or begin anew in another --run-dir.`,
    },
  );
}

/** Only more trials are allowed. */
function refuseOther(earlier: SweepPlan, plan: Omit<SweepPlan, 'format' | 'queue'>, path: string): void {
  const refuse = (reason: string, hint: string): FlowCompressError =>
    new FlowCompressError('bad-input', `${path} holds another sweep: ${reason}.`, { node: path, hint });
  const [was, is] = [Object.keys(earlier.commands), Object.keys(plan.commands)];
  if (was.some((command) => !is.includes(command)))
    throw refuse(`it is of ${was.join(', ')}, not of ${is.join(', ')}`, 'Give another --run-dir.');
  const ids = new Set(plan.trials.map(({ id }) => id));
  const gone = earlier.trials.filter(({ id }) => !ids.has(id));
  if (gone.length > 0)
    throw refuse(
      `${String(gone.length)} of its ${String(earlier.trials.length)} trials are not in this one, for example ${gone[0]!.name}`,
      'Trials may be added to a sweep; for others give another --run-dir.',
    );
  const changed = Object.entries(plan.inputs).find(([file, print]) => (earlier.inputs[file] ?? print) !== print);
  if (changed)
    throw refuse(`${changed[0]} has changed since it was begun`, 'Put the file back, or give another --run-dir.');
}
