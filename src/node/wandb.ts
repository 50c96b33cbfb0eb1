/** Curves in Weights & Biases, through its JavaScript SDK (`@wandb/sdk`) where the user has installed it. */
import { FlowCompressError, messageOf } from '../errors.js';
import type { TrainingEvent } from '../training/trainer.js';
import { errorCode } from './error-code.js';
import { scalarsOf } from './training-log.js';

/** What is used of a run of the SDK. */
export interface WandbRun {
  log(data: Record<string, unknown>, step?: number): void;
  finish(code?: number): Promise<void>;
}

/** What is used of the SDK. */
export interface WandbSdk {
  init(options: {
    project: string;
    config: Readonly<Record<string, unknown>>;
    settings: { silent: boolean };
  }): Promise<WandbRun>;
}

export interface WandbLog {
  write(event: TrainingEvent): void;
  /** Sends what is left and ends the run. */
  close(succeeded: boolean): Promise<void>;
}

const PACKAGE = '@wandb/sdk';
/** Milliseconds that the end of a run may take: without a network the SDK tries again for ever. */
const LONGEST_FINISH = 30_000;
/** Events on which the SDK would end the process by itself. */
const SIGNALS = ['SIGINT', 'SIGTERM'] as const;

/**
 * Starts a run in a project.
 * @param sdk loaded from the package when absent
 * @throws FlowCompressError `bad-input` when the package is not installed, `io` when the run cannot be started
 */
export async function wandbLog(
  project: string,
  config: Readonly<Record<string, unknown>>,
  sdk?: WandbSdk,
  patience = LONGEST_FINISH,
): Promise<WandbLog> {
  const loaded = sdk ?? (await loadSdk());
  const before = new Map(SIGNALS.map((signal) => [signal, new Set(process.listeners(signal))]));
  let run: WandbRun;
  try {
    // Its messages would go to stdout, between the lines of the report.
    run = await loaded.init({ project, config, settings: { silent: true } });
  } catch (error) {
    throw new FlowCompressError('io', `The run in Weights & Biases cannot be started: ${messageOf(error)}`, {
      node: project,
      hint: 'Set WANDB_API_KEY and check the network, or leave out --wandb: --run-dir keeps the same curves on disk.',
      cause: error,
    });
  } finally {
    // Ctrl-C writes a checkpoint first.
    for (const signal of SIGNALS)
      for (const listener of process.listeners(signal))
        if (!before.get(signal)!.has(listener)) process.off(signal, listener);
  }
  let pending: { step: number; data: Record<string, number> } | undefined;
  const flush = (): void => {
    try {
      if (pending) run.log(pending.data, pending.step);
    } catch {
      // A log stops no training.
    }
    pending = undefined;
  };
  return {
    write(event) {
      // One row per step: what an epoch adds belongs to its last one.
      if (pending && pending.step !== event.step) flush();
      pending = { step: event.step, data: { ...pending?.data, ...scalarsOf(event), epoch: event.epoch } };
    },
    async close(succeeded) {
      flush();
      let timer: NodeJS.Timeout | undefined;
      const late = new Promise<void>((resolve) => (timer = setTimeout(resolve, patience)));
      await Promise.race([run.finish(succeeded ? 0 : 1).catch(() => undefined), late]);
      clearTimeout(timer);
    },
  };
}

async function loadSdk(): Promise<WandbSdk> {
  let loaded: unknown;
  try {
    // Not a dependency: the name is kept from the compiler.
    loaded = await import(String(PACKAGE));
  } catch (error) {
    const missing = errorCode(error) === 'ERR_MODULE_NOT_FOUND' && messageOf(error).includes(PACKAGE);
    throw new FlowCompressError(
      'bad-input',
      missing
        ? `--wandb needs the package ${PACKAGE}, which is not installed.`
        : `The package ${PACKAGE} cannot be loaded: ${messageOf(error)}`,
      { node: PACKAGE, hint: `npm install ${PACKAGE}, beside flow-compress.`, cause: error },
    );
  }
  const sdk = (loaded as { default?: unknown }).default ?? loaded;
  if (isSdk(sdk)) return sdk;
  throw new FlowCompressError('bad-input', `This version of ${PACKAGE} has no init().`, {
    node: PACKAGE,
    hint: 'Install version 0.5.',
  });
}

function isSdk(value: unknown): value is WandbSdk {
  return typeof value === 'object' && value !== null && 'init' in value && typeof value.init === 'function';
}
