/** Measures model files side by side in one run: bytes, size of the computation, quality on one split, latency. */
import type { ModelProto } from 'onnx-buf';
import type { Dataset } from '../data/dataset.js';
import { FlowCompressError, messageOf, throwIfAborted } from '../errors.js';
import { gzipBytes } from '../node/model-file.js';
import type { GivenModel, ModelInput } from '../node/model-input.js';
import { Graph } from '../onnx/graph.js';
import { modelMacs, valuesForMacs } from '../onnx/macs.js';
import { parameterCount } from '../onnx/parameters.js';
import type { RunControl } from '../progress.js';
import type { Latency, Measurement, Metric } from '../report/report.js';
import type { Engine, Feeds, Session } from '../runtime/engine.js';
import { measureLatency, TIMED_TOGETHER } from '../runtime/latency.js';
import { evaluateSessions, type LabelMetric, type MetricValue } from '../runtime/metric.js';
import { traceValues } from '../runtime/trace.js';
import type { RunClock } from './run-info.js';
import { assertSameInputs } from './same-inputs.js';
import { sessionWithInputNames, withInputNames, type InputNames } from './input-names.js';
import { openCheckedModel, openSession, type Workspace } from './workspace.js';

/** A model to measure, and what reports and messages call it. */
export interface MeasuredSubject {
  readonly input: ModelInput;
  readonly shownAs: string;
  /** What the data calls its inputs, by their own names, where that differs. */
  readonly inputNames?: InputNames | undefined;
}

export interface MeasuredFile {
  readonly name: string;
  readonly measurement: Measurement;
  /** Median over interleaved rounds of this file's time divided by the first file's, by batch size. */
  readonly latencyRatios: ReadonlyMap<number, number>;
}

export interface MeasureOptions {
  /** Where the quality is measured, and what that split is called. */
  readonly dataset: Dataset;
  readonly split: Metric['split'];
  /** Where the main figure is measured once more, with no timing. */
  readonly val?: Dataset;
  /** The main figure where there are labels; `top1` when absent. */
  readonly main?: LabelMetric;
  /** Rows per call while timing. Default: the workspace's. */
  readonly batchSizes?: readonly number[];
  /** Timed rounds at least. */
  readonly latencyRuns?: number;
  readonly threads?: number;
  /** Books the time of the stages. */
  readonly clock?: RunClock;
  /** Leaves out the timing. */
  readonly skipLatency?: boolean;
}

/**
 * Measures files with the engine, data and batches of a workspace. The first file is the reference of agreement, SQNR and
 * time ratios. All files see the same batches, read once, and are timed in turns.
 * @throws FlowCompressError `bad-input` when the inputs of the files differ or a file cannot be used; `aborted`
 */
export async function measureFiles(
  workspace: Workspace,
  subjects: readonly MeasuredSubject[],
  options: MeasureOptions,
  control: RunControl = {},
): Promise<{ files: MeasuredFile[]; warnings: string[] }> {
  const { engine } = workspace;
  const { clock, dataset, split } = options;
  const stage: RunClock['stage'] = clock?.stage ?? ((_, work) => work());
  const warnings: string[] = [];
  const names = subjects.map(({ shownAs }) => shownAs);
  const statics = await stage('read files', () => readStatics(workspace, subjects, warnings, control));
  const sessions: Session[] = [];
  try {
    for (const { opened } of statics) {
      throwIfAborted(control.signal);
      const session = await openSession(engine, opened, { config: statics.length > 1 ? TIMED_TOGETHER : {} });
      const { inputNames } = subjects[sessions.length]!;
      sessions.push(inputNames ? sessionWithInputNames(session, inputNames) : session);
    }
    sessions.forEach((session, i) => assertSameInputs(sessions[0].inputs, session.inputs, names[0], names[i]));
    const evaluateOn = (samples: Dataset, name: Metric['split']): ReturnType<typeof evaluateSessions> =>
      stage(`evaluate ${name}`, () =>
        evaluateSessions(
          sessions.map((session, i) => ({ name: names[i], session })),
          workspace.batch(samples),
          { ...control, total: samples.size, stage: `evaluate on ${name}`, main: options.main },
        ),
      );
    const onVal = options.val && options.val.size > 0 ? await evaluateOn(options.val, 'val') : undefined;
    const quality = await evaluateOn(dataset, split);
    warnings.push(...quality.warnings);
    const timed = options.skipLatency
      ? names.map((): TimedFile => ({ latencies: [], ratios: new Map() }))
      : await stage('latency', () => timeFiles(workspace, sessions, options, warnings, control));
    const files = names.map((name, i): MeasuredFile => {
      const { metric, metrics } = quality.evaluations[i];
      const { latencies, ratios } = timed[i];
      const asMetric = (value: MetricValue): Metric => ({ ...value, split });
      const val = onVal?.evaluations[i].metric;
      return {
        name,
        latencyRatios: ratios,
        measurement: {
          ...statics[i].sizes,
          ...(metric && { metric: asMetric(metric) }),
          ...(val && { val: { ...val, split: 'val' } }),
          ...(metrics.length > 0 && { metrics: metrics.map(asMetric) }),
          ...(latencies.length > 0 && { latency: latencies[0] }),
          ...(latencies.length > 1 && { latencies }),
        },
      };
    });
    return { files, warnings };
  } finally {
    await Promise.all(sessions.map((session) => session.release()));
  }
}

/** What a file is without running it on data. */
interface Statics {
  readonly opened: GivenModel;
  readonly sizes: Pick<Measurement, 'bytes' | 'gzipBytes' | 'params' | 'macs'>;
}

async function readStatics(
  workspace: Workspace,
  subjects: readonly MeasuredSubject[],
  warnings: string[],
  { signal, onProgress }: RunControl,
): Promise<Statics[]> {
  const { engine, feedsFor, fixedBatch } = workspace;
  const statics: Statics[] = [];
  for (const [i, { input, shownAs, inputNames }] of subjects.entries()) {
    onProgress?.({ stage: 'read files', done: i, total: subjects.length, detail: shownAs });
    const same = input === workspace.input;
    const opened = same ? workspace.opened : await openCheckedModel(input, { name: shownAs, signal });
    const gzip = await gzipBytes(opened.content, { signal });
    const { model } = inputNames ? withInputNames(opened, inputNames) : opened;
    const macs = await macsOf(engine, model, feedsFor(fixedBatch ?? 1), fixedBatch ?? 1, shownAs, warnings);
    statics.push({
      opened,
      sizes: {
        bytes: opened.bytes,
        gzipBytes: gzip,
        params: parameterCount(opened.model),
        ...(macs !== undefined && { macs }),
      },
    });
  }
  onProgress?.({ stage: 'read files', done: subjects.length, total: subjects.length });
  return statics;
}

/** Multiply-accumulates of one sample, from the shapes of a traced run; undefined, with a warning, where they cannot be known. */
async function macsOf(
  engine: Engine,
  model: ModelProto,
  feeds: Feeds,
  rows: number,
  name: string,
  warnings: string[],
): Promise<number | undefined> {
  const graph = new Graph(model);
  try {
    const shapes = await traceValues(engine, model, feeds, valuesForMacs(graph));
    const macs = modelMacs(graph, shapes, rows);
    if (macs === undefined) {
      warnings.push(
        `The MACs of ${name} are not known: work inside loops, functions or unknown operators is not counted.`,
      );
    }
    return macs;
  } catch (error) {
    if (!(error instanceof FlowCompressError) || error.code === 'aborted') throw error;
    warnings.push(`The MACs of ${name} are not known, since its shapes could not be traced: ${messageOf(error)}`);
    return undefined;
  }
}

interface TimedFile {
  readonly latencies: Latency[];
  readonly ratios: Map<number, number>;
}

async function timeFiles(
  { engine, fixedBatch, feedsFor, timedBatches }: Workspace,
  sessions: readonly Session[],
  options: MeasureOptions,
  warnings: string[],
  control: RunControl,
): Promise<TimedFile[]> {
  const wanted = options.batchSizes ?? timedBatches;
  const sizes = fixedBatch === undefined ? [...new Set(wanted)].sort((a, b) => a - b) : [fixedBatch];
  if (fixedBatch !== undefined && options.batchSizes?.some((size) => size !== fixedBatch)) {
    warnings.push(`The model runs with batches of ${fixedBatch} only; other batch sizes were not timed.`);
  }
  const files = sessions.map((): TimedFile => ({ latencies: [], ratios: new Map() }));
  for (const batch of sizes) {
    const feeds = feedsFor(batch);
    const results = await measureLatency(
      sessions.map((session) => ({ session, feeds })),
      { ...control, stage: `latency, batch ${batch}`, ...(options.latencyRuns && { runs: options.latencyRuns }) },
    );
    results.forEach(({ medianMs, p90Ms, runs, ratioToFirst }, i) => {
      files[i].ratios.set(batch, ratioToFirst);
      files[i].latencies.push({
        medianMs,
        p90Ms,
        batch,
        ...(options.threads !== undefined && { threads: options.threads }),
        provider: engine.provider,
        runs,
      });
    });
  }
  return files;
}
