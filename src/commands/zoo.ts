/** `zoo list` and `zoo build`: the architectures there are, and untrained models of them as files. */
import type { ModelProto } from 'onnx-buf';
import { nearest } from '../nearest.js';
import { FlowCompressError, throwIfAborted } from '../errors.js';
import { assertWritableOutput } from '../node/atomic-file.js';
import { saveModel } from '../node/model-file.js';
import type { RunControl } from '../progress.js';
import type { Architecture } from '../zoo/architecture.js';
import { buildNetwork, countNetwork } from '../zoo/build.js';
import type { ZooOptions } from '../zoo/options.js';
import { ARCHITECTURES, findArchitecture } from '../zoo/registry.js';

export interface ZooListReport {
  readonly command: 'zoo list';
  readonly architectures: readonly {
    readonly name: string;
    readonly summary: string;
    /** Learned numbers with the default options. */
    readonly params: number;
    /** Multiply-accumulates of one sample with the default options. */
    readonly macs: number;
    /** The options that the architecture has, with their defaults. */
    readonly options: Readonly<Record<string, string | number>>;
  }[];
}

export interface ZooBuildReport {
  readonly command: 'zoo build';
  readonly architecture: string;
  readonly output: string;
  readonly seed: number;
  /** What it was built with. */
  readonly options: Readonly<Record<string, string | number>>;
  readonly params: number;
  readonly macs: number;
  readonly bytes: number;
  readonly seconds: number;
}

/** What `buildFromZoo` takes: where the model goes, and options of the architecture. */
export type ZooBuildOptions = ZooOptions &
  RunControl & {
    readonly output: string;
    /** Replace an existing output. */
    readonly force?: boolean;
    /** How messages call an option. */
    readonly nameOf?: (option: string) => string;
  };

/** All architectures with their counts at the default options; nothing is built that would hold weights. */
export function listZoo(): { report: ZooListReport } {
  const architectures = ARCHITECTURES.map((architecture) => {
    const { name, summary, defaults } = architecture;
    return { name, summary, ...countNetwork(architecture), options: { ...defaults, seed: 0 } };
  });
  return { report: { command: 'zoo list', architectures } };
}

/**
 * Writes an untrained model of an architecture, whole or not at all. The same options give the same bytes.
 * @param name of an architecture, as `listZoo` has it
 * @throws FlowCompressError `bad-input` for an unknown name or an option the architecture does not have or cannot have so,
 *   or when the output exists; `io`; `aborted`
 */
export async function buildFromZoo(
  name: string,
  options: ZooBuildOptions,
): Promise<{ model: ModelProto; report: ZooBuildReport }> {
  const start = performance.now();
  const { output, force = false, nameOf, signal, onProgress, ...own } = options;
  const architecture = architectureNamed(name);
  await assertWritableOutput(output, { force });
  onProgress?.({ stage: 'build', done: 0, total: 2, detail: architecture.name });
  const { model, settings, params, macs } = buildNetwork(architecture, own, nameOf);
  throwIfAborted(signal);
  onProgress?.({ stage: 'build', done: 1, total: 2, detail: output });
  const { bytes } = await saveModel(model, output, { force, signal });
  onProgress?.({ stage: 'build', done: 2, total: 2 });
  const used = Object.entries(settings).filter(([option]) => option in architecture.defaults);
  return {
    model,
    report: {
      command: 'zoo build',
      architecture: architecture.name,
      output,
      seed: settings.seed,
      options: Object.fromEntries(used),
      params,
      macs,
      bytes,
      seconds: (performance.now() - start) / 1000,
    },
  };
}

/** @throws FlowCompressError `bad-input` for a name that none has, with the nearest */
export function architectureNamed(name: string): Architecture {
  const found = findArchitecture(name);
  if (found) return found;
  const near = nearest(
    name,
    ARCHITECTURES.map((architecture) => architecture.name),
  );
  throw new FlowCompressError('bad-input', `There is no architecture "${name}".`, {
    hint: near === undefined ? '`flow-compress zoo list` shows all of them.' : `Did you mean "${near}"?`,
  });
}
