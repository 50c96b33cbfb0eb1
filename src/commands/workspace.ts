/** What every command that needs data starts from: the model opened and checked, its data split, ready to feed. */
import type { ModelProto } from 'onnx-buf';
import { realpath, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Batch, Dataset, OpenedData } from '../data/dataset.js';
import { batches } from '../data/loader.js';
import { parsePreprocessOptions, type PreprocessOptions } from '../data/preprocess.js';
import { resealed, type SealedTest } from '../data/sealed-test.js';
import { noiseCount } from '../data/noise.js';
import { noised, noisedInputs, type NoisedInputs, type NoiseSchedule } from '../data/noised.js';
import { seedOf } from '../data/random.js';
import { makeSplits, type Splits, type WorkingSplits } from '../data/splits.js';
import { FlowCompressError, throwIfAborted } from '../errors.js';
import { openDataset } from '../node/data/open.js';
import { readPreprocessFile } from '../node/data/preprocess-file.js';
import { nameOf, openModelInput, type GivenModel, type ModelInput } from '../node/model-input.js';
import { nodeEngine } from '../node/onnxruntime.js';
import { validateModel } from '../onnx/validate.js';
import type { RunControl } from '../progress.js';
import type { DataSummary } from '../report/report.js';
import type { Engine, Feeds, Session, SessionOptions, ValueSignature } from '../runtime/engine.js';
import { checkLabels } from '../runtime/metric.js';
import { fixedBatchOf, takeRows } from '../runtime/rows.js';
import { headOfRun, type RunHead } from '../runtime/head-of-run.js';
import type { DataOptions } from './options.js';
import { checkTargetShape } from './train/target-arrays.js';

export interface Workspace {
  /** The model as the caller gave it. */
  readonly input: ModelInput;
  readonly opened: GivenModel;
  readonly engine: Engine;
  readonly inputs: readonly ValueSignature[];
  readonly outputs: readonly ValueSignature[];
  /** Rows that every run must have; undefined when any number will do. */
  readonly fixedBatch: number | undefined;
  /** What algorithms may read. */
  readonly working: WorkingSplits;
  /** For the report, opened once with `openTest`. */
  readonly test: SealedTest;
  /** The data part of reports. */
  readonly data: DataSummary;
  /** What the user should know, for the report's warnings. */
  readonly notes: readonly string[];
  /** Name of the output with one score per class, [samples, classes]; undefined for other models. */
  readonly scores: string | undefined;
  /** Classes that it tells apart; 2 for one score per sample. */
  readonly classes: number | undefined;
  /** The float output that tells the class of every sample. */
  readonly head: ClassOutput | undefined;
  /** Shapes of the float32 outputs whose first axis are the samples, for one or more samples. */
  readonly outputDims: ReadonlyMap<string, readonly number[]>;
  /** As the options ask for it. */
  readonly batchSize: number;
  /** A dataset in batches of `size` samples (default: the options' batch size, fewer for large inputs), or of the rows the model insists on. */
  readonly batch: (dataset: Dataset, size?: number) => AsyncGenerator<Batch, void, undefined>;
  /** Batch sizes at which files are timed: 1 and 32, or what the model or its large inputs leave. */
  readonly timedBatches: readonly number[];
  /** Feeds of `rows` real samples of TRAIN, the same ones every time; few different ones, repeated as needed. */
  readonly feedsFor: (rows: number) => Feeds;
  readonly close: () => Promise<void>;
}

/** An output with one score per class, or `binary`: one per sample, high for class 1. */
export interface ClassOutput {
  readonly kind: 'classes' | 'binary';
  readonly output: string;
  readonly classes: number;
}

export interface WorkspaceOptions {
  /** What messages call a model in memory. */
  readonly name?: string;
  /** Read arrays that are named after outputs too. */
  readonly readTargets?: boolean;
  /** Feed the samples as a diffusion model sees them, those of TRAIN several times with other noise. */
  readonly diffusion?: { readonly schedule: NoiseSchedule; readonly draws: number } | undefined;
}

/** Samples of TRAIN kept at hand for checks, traces and timing. */
export const SAMPLES_AT_HAND = 8;

/**
 * Opens the model, learns its inputs from the engine, opens and splits the data, and checks that they fit each other.
 * @param input of a folder in the Hugging Face layout the preprocessing holds where the options are silent
 * @throws FlowCompressError `bad-input`, `unsupported` or `io` naming the file, node or option; `aborted`
 */
export async function openWorkspace(
  input: ModelInput,
  options: DataOptions,
  control: RunControl = {},
  { name = nameOf(input), readTargets = false, diffusion }: WorkspaceOptions = {},
): Promise<Workspace> {
  const { signal, onProgress } = control;
  onProgress?.({ stage: 'open', done: 0, total: 2, detail: name });
  await refuseSameData(options);
  const engine = nodeEngine({ threads: options.threads });
  const opened = await openCheckedModel(input, { name, signal });
  const { inputs, outputs } = await signaturesOf(engine, opened);
  throwIfAborted(signal);
  onProgress?.({ stage: 'open', done: 1, total: 2, detail: options.data });
  const preprocess = await preprocessingFor(input, options);
  const sources: OpenedData[] = [];
  const close = async (): Promise<void> => {
    await Promise.all(sources.map((source) => source.close()));
  };
  try {
    const noisy = diffusion && { ...diffusion, of: noisedInputs(inputs, outputs) };
    const read = noisy ? [noisy.of.sample] : inputs;
    const named = readTargets && !noisy ? outputs.map((output) => output.name) : [];
    const main = await openDataset(options.data, read, preprocess, named);
    sources.push(main);
    const testData = options.test === undefined ? undefined : await openDataset(options.test, read, preprocess, named);
    if (testData) sources.push(testData);
    const clean = makeSplits(main, { seed: options.seed, calibSamples: options.calibSamples, testData });
    const { working, test } = noisy ? await noisedSplits(clean, noisy, options.seed) : clean;
    const trial = await tryModel(engine, opened, inputs, working.train);
    const { fixedBatch, classes } = trial;
    const feedsOfOne = takeRows(trial.feeds, 1);
    checkAllTargets(sources, trial.outputDims);
    if (classes !== undefined) for (const source of sources) checkAllLabels(source, classes, opened.name);
    onProgress?.({ stage: 'open', done: 2, total: 2 });
    return {
      input,
      opened,
      engine,
      inputs,
      outputs,
      fixedBatch,
      scores: trial.scores,
      classes: trial.classes,
      head: trial.head,
      outputDims: trial.outputDims,
      working,
      test,
      data: summaryOf(options, sources, { working, test }),
      notes: [
        ...sources.flatMap((source) => source.notes),
        ...targetNotes(options),
        ...preprocessNotes(main, preprocess, read),
        ...trial.notes,
      ],
      batchSize: options.batchSize,
      batch: (dataset, size = batchSizeFor(options.batchSize, feedsOfOne)) =>
        batches(dataset, fixedBatch ?? size, { signal, fixedBatch: fixedBatch !== undefined }),
      timedBatches: fixedBatch === undefined ? timedBatchesFor(feedsOfOne) : [fixedBatch],
      feedsFor: (rows) => takeRows(trial.feeds, rows),
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** TRAIN with several draws, the others with one each. */
async function noisedSplits(
  { working, test }: Splits,
  { of, schedule, draws }: { readonly of: NoisedInputs; readonly schedule: NoiseSchedule; readonly draws: number },
  seed: number,
): Promise<Splits> {
  const view = (part: Dataset, stream: number, count = 1): Promise<Dataset> =>
    noised(part, of, schedule, { draws: count, seed: seedOf(seed, stream) });
  return {
    working: {
      train: await view(working.train, 0, draws),
      val: await view(working.val, 1),
      calib: await view(working.calib, 2),
    },
    test: await resealed(test, (part) => view(part, 3)),
  };
}

/**
 * The same data and engine with another model, which must take the same inputs; only the first workspace is closed.
 * @throws FlowCompressError as `openWorkspace`
 */
export async function withModel(base: Workspace, input: ModelProto, name: string): Promise<Workspace> {
  const opened = await openCheckedModel(input, { name });
  const { inputs, outputs } = await signaturesOf(base.engine, opened);
  const { fixedBatch, scores, classes, head, outputDims } = await tryModel(
    base.engine,
    opened,
    inputs,
    base.working.train,
  );
  return { ...base, input, opened, inputs, outputs, fixedBatch, scores, classes, head, outputDims };
}

/** Bytes of inputs per engine call: activations take some twenty times as much. */
const INPUT_BYTES = 8e6;

/** The wanted batch size, or what keeps the activations of large inputs within a few hundred megabytes. */
function batchSizeFor(wanted: number, feeds: Feeds): number {
  return Math.max(1, Math.min(wanted, Math.floor(INPUT_BYTES / Math.max(bytesOf(feeds), 1))));
}

function bytesOf(feeds: Feeds): number {
  return Object.values(feeds).reduce((sum, tensor) => sum + tensor.data.byteLength, 0);
}

/** A batch of 32 large images would take gigabytes of activations. */
function timedBatchesFor(feeds: Feeds): number[] {
  return 32 * bytesOf(feeds) <= 8 * INPUT_BYTES ? [1, 32] : [1];
}

/** Opens a model and checks its structure. @throws FlowCompressError as openModelInput and validateModel */
export async function openCheckedModel(
  input: ModelInput,
  options: { readonly name?: string; readonly signal?: AbortSignal } = {},
): Promise<GivenModel> {
  const opened = await openModelInput(input, options);
  try {
    validateModel(opened.model);
  } catch (error) {
    if (!(error instanceof FlowCompressError)) throw error;
    const { code, node, hint } = error;
    throw new FlowCompressError(code, `${opened.name}: ${error.message}`, { node, hint, cause: error });
  }
  return opened;
}

/** Compiles an opened model. @throws FlowCompressError as the engine, naming the model */
export async function openSession(
  engine: Engine,
  { content, name }: GivenModel,
  options?: SessionOptions,
): Promise<Session> {
  try {
    return await engine.createSession(content, options);
  } catch (error) {
    if (!(error instanceof FlowCompressError) || error.node !== undefined) throw error;
    throw new FlowCompressError(error.code, error.message, { node: name, hint: error.hint, cause: error });
  }
}

async function signaturesOf(
  engine: Engine,
  opened: GivenModel,
): Promise<{ inputs: readonly ValueSignature[]; outputs: readonly ValueSignature[] }> {
  const session = await openSession(engine, opened);
  const { inputs, outputs } = session;
  await session.release();
  return { inputs, outputs };
}

/** `--data` and `--test` that are the same file or folder, whatever way they are written. Missing ones are refused later, by name. */
async function refuseSameData({ data, test }: DataOptions): Promise<void> {
  if (test === undefined) return;
  const [a, b] = await Promise.all([data, test].map((path) => realpath(path).catch(() => undefined)));
  const isDrawnTwice = noiseCount(data) !== undefined && data === test;
  if ((a === undefined || a !== b) && !isDrawnTwice) return;
  throw new FlowCompressError(
    'bad-input',
    `${data} is given for both --data and --test: the test would measure nothing.`,
    {
      node: data,
      hint: 'Give a different --test, or leave it out: a tenth of --data is then kept apart for it.',
    },
  );
}

/** Flags win over `--preprocess FILE`, which replaces the model folder's own preprocessor_config.json. */
async function preprocessingFor(input: ModelInput, options: DataOptions): Promise<PreprocessOptions> {
  const own = typeof input === 'string' ? join(input, 'preprocessor_config.json') : undefined;
  const exists =
    own !== undefined &&
    (await stat(own).then(
      (info) => info.isFile(),
      () => false,
    ));
  const file = options.preprocessFile ?? (exists ? own : undefined);
  const base = file === undefined ? {} : await readPreprocessFile(file);
  const given = Object.entries(options.preprocess).filter(([, value]) => value !== undefined);
  return parsePreprocessOptions({ ...base, ...Object.fromEntries(given) }, 'the preprocessing options');
}

interface Trial {
  readonly feeds: Feeds;
  readonly fixedBatch: number | undefined;
  /** Classes of a model with class scores; 2 for one score per sample. */
  readonly classes: number | undefined;
  /** Name of the output with a score per class. */
  readonly scores: string | undefined;
  readonly head: ClassOutput | undefined;
  readonly outputDims: ReadonlyMap<string, readonly number[]>;
  readonly notes: readonly string[];
}

/** Runs the model on a few samples: they must fit it, and a model may insist on one row although its inputs do not say so. */
async function tryModel(
  engine: Engine,
  opened: GivenModel,
  inputs: readonly ValueSignature[],
  train: Dataset,
): Promise<Trial> {
  const declared = fixedBatchOf(inputs);
  const rows = Math.max(SAMPLES_AT_HAND, declared ?? 0);
  const { feeds } = await train.read(Int32Array.from({ length: Math.min(rows, train.size) }, (_, i) => i));
  const session = await openSession(engine, opened);
  const run = (count: number): Promise<RunHead> =>
    headOfRun(session, takeRows(feeds, count), train.labels !== undefined);
  const headFields = (
    { outputs, head: found, scores }: RunHead,
    count: number,
  ): Omit<Trial, 'feeds' | 'fixedBatch' | 'notes'> => {
    const head: ClassOutput | undefined =
      found.kind === 'classes' || found.kind === 'binary'
        ? {
            ...{ kind: found.kind, output: outputs[found.output].name },
            classes: found.kind === 'classes' ? found.classes : 2,
          }
        : undefined;
    const trainable = outputs.filter(({ tensor: { type, dims } }) => type === 'float32' && dims[0] === count);
    return {
      ...{ classes: head?.classes, scores, head },
      outputDims: new Map(trainable.map(({ name, tensor }) => [name, tensor.dims])),
    };
  };
  try {
    const single = await run(declared ?? 1);
    if (declared !== undefined) {
      return { feeds, fixedBatch: declared, ...headFields(single, declared), notes: [] };
    }
    const pair = await run(2).catch(() => undefined);
    const free = pair?.outputs.some(({ tensor }, i) => tensor.dims[0] !== single.outputs[i].tensor.dims[0]) ?? false;
    if (free) return { feeds, fixedBatch: undefined, ...headFields(single, 1), notes: [] };
    return {
      feeds,
      fixedBatch: 1,
      ...headFields(single, 1),
      notes: [
        'The model declares a free batch dimension but works for single samples only; it is fed one sample at a time.',
      ],
    };
  } finally {
    await session.release();
  }
}

/** The figures of TEST need the targets that the training needs. */
function checkAllTargets([main, ...others]: readonly OpenedData[], outputDims: Workspace['outputDims']): void {
  const wanted = Object.entries(main!.all?.targets ?? {});
  for (const [output, dims] of wanted) {
    const expected = outputDims.get(output);
    if (expected) checkTargetShape(dims, expected, output, main!.all!.source);
    for (const { all } of others) {
      if (!all) continue;
      const found = all.targets?.[output];
      if (!found)
        throw new FlowCompressError('bad-input', `${all.source} has no array ${output}, as ${main!.all!.source} has.`, {
          node: all.source,
          hint: 'Give both files the same arrays, or leave out --test: a tenth of --data is then kept apart for it.',
        });
      if (expected) checkTargetShape(found, expected, output, all.source);
    }
  }
}

function checkAllLabels(source: OpenedData, classes: number, model: string): void {
  for (const part of [source.all, source.train, source.val, source.test]) {
    if (part?.labels) checkLabels(part.labels, classes, 0, model, part.source);
  }
}

function targetNotes({ target }: DataOptions): string[] {
  if (target === 'cpu') return [];
  return [
    `Latency was measured on the native CPU engine of this machine; the target ${target} guides decisions but is not run here.`,
  ];
}

/** Models are rarely trained on plain 0..1 pixels: a forgotten --mean shows as poor accuracy only. */
function preprocessNotes(main: OpenedData, preprocess: PreprocessOptions, inputs: readonly ValueSignature[]): string[] {
  const { mean, std, scale } = preprocess;
  const silent = mean === undefined && std === undefined && scale === undefined;
  if (
    main.kind === 'npz' ||
    main.kind === 'noise' ||
    !silent ||
    !inputs.some((input) => input.type.startsWith('float'))
  )
    return [];
  return ['No --mean, --std or --scale was given: pixels are fed as 0 to 1.'];
}

function summaryOf(
  options: DataOptions,
  sources: readonly OpenedData[],
  splits: { working: WorkingSplits; test: SealedTest },
): DataSummary {
  const [main] = sources;
  const { train, val, calib } = splits.working;
  const names = (main.all ?? main.train)?.classNames;
  return {
    source: options.data,
    ...(options.test !== undefined && { test: options.test }),
    labels: train.labels !== undefined,
    ...(names && { classes: names.length }),
    samples: { train: train.size, val: val.size, calib: calib.size, test: splits.test.size },
  };
}
