/** What `quantize` and `profile` share: the prepared model with everything a quantization method asks for. */
import { firstSamples } from '../../data/subset.js';
import { FlowCompressError } from '../../errors.js';
import { findAttention } from '../../flow/attention.js';
import { magnitudeProbes } from '../../flow/magnitude.js';
import { Graph, rewrite } from '../../onnx/graph.js';
import { shortcutToConv } from '../../onnx/passes/shortcut-to-conv.js';
import { findLayers, weightMatrix, type WeightLayer } from '../../onnx/layers.js';
import type { ModelProto } from 'onnx-buf';
import type { RunControl } from '../../progress.js';
import type { FlowSource, QuantizationContext, QuantizationSettings } from '../../quantization/method.js';
import { probeSamplesFor } from '../../quantization/kl-probe.js';
import type { SensitivityInput } from '../../quantization/sensitivity.js';
import { bytesPerSample, traceShapes, type TracedValues } from '../../runtime/trace.js';
import { DEFAULTS } from '../options.js';
import { prepareModel } from '../prepare.js';
import type { Workspace } from '../workspace.js';

export interface PreparedStudy {
  /** The model in the form that compression works on; it computes what the original computes. */
  readonly model: ModelProto;
  /** Dims of every value for `rows` samples. */
  readonly shapes: TracedValues;
  readonly rows: number;
  readonly layers: readonly WeightLayer[];
  readonly attentionLayers: ReadonlySet<string>;
  readonly warnings: readonly string[];
}

/**
 * Prepares a model and traces it.
 * @param given of the inputs of the workspace's model; that itself when absent
 * @throws FlowCompressError `unsupported` when the model has no weight layer.
 */
export async function prepareStudy(
  workspace: Workspace,
  control: RunControl,
  given?: ModelProto,
): Promise<PreparedStudy> {
  const { engine, opened, feedsFor, fixedBatch } = workspace;
  const source = given ?? opened.model;
  const prepared = await prepareModel(engine, source, feedsFor, { fixedBatch, signal: control.signal });
  const feeds = feedsFor(fixedBatch ?? 1);
  const shapes = await traceShapes(engine, prepared.model, feeds);
  // Every value that this leaves in the graph was there before.
  const model = rewrite(prepared.model, (graph) => shortcutToConv(graph, (value) => shapes.get(value.name)?.dims));
  const graph = new Graph(model);
  const layers = findLayers(graph).filter((layer) => shapes.get(layer.output.name)?.type === 'float32');
  if (layers.length === 0) {
    throw new FlowCompressError(
      'unsupported',
      'The model has no layer with constant float32 weights (Conv, Gemm, MatMul, Gather).',
      {
        node: opened.name,
        hint: 'Models that are quantized already, hold float16 weights, or compute their weights at run time, cannot be quantized: start from the float32 export.',
      },
    );
  }
  const attention = findAttention(graph, layers, shapes);
  const attentionLayers = new Set(
    attention.blocks.flatMap((b) => [b.q.layer, b.k.layer, b.v.layer, ...(b.out ? [b.out] : [])]).map((l) => l.name),
  );
  return { model, shapes, rows: fixedBatch ?? 1, layers, attentionLayers, warnings: prepared.warnings };
}

/** Rows per engine call where what is read back is large and the same for any number of rows. */
export const WIDE_BATCH = 128;
/** Bytes of all activations of such a call, if none were freed in the course of it. */
export const WIDE_BYTES = 64e6;

/** Rows per call of a wide pass, as far as the activations stay small. @param shapes of `rows` samples */
export function wideRows(shapes: TracedValues, rows: number): number {
  return Math.min(WIDE_BATCH, Math.floor(WIDE_BYTES / Math.max(bytesPerSample(shapes.values(), rows), 1)));
}

/** The same where it is more than usual; undefined stands for the usual size. */
function wideBatch({ shapes, rows }: PreparedStudy, usual: number): number | undefined {
  const size = wideRows(shapes, rows);
  // Who asks for smaller batches than usual has reasons.
  return size > usual && usual >= DEFAULTS.batchSize ? size : undefined;
}

/** The context of a method over CALIB. `quantizable`: values that int8 execution would quantize. */
export function quantizationContext(
  workspace: Workspace,
  study: PreparedStudy,
  quantizable: ReadonlySet<string>,
  settings: QuantizationSettings,
  control: RunControl,
  warn: (message: string) => void,
): QuantizationContext {
  const { engine, working, batch, fixedBatch } = workspace;
  const { model, shapes, layers, attentionLayers } = study;
  return {
    engine,
    model,
    shapes,
    layers,
    attentionLayers,
    quantizable,
    settings,
    control,
    warn,
    fixedBatch,
    calibration: ({ limit = working.calib.size, wide = false, rows } = {}) =>
      batch(firstSamples(working.calib, limit), rows ?? (wide ? wideBatch(study, workspace.batchSize) : undefined)),
    calibrationSamples: working.calib.size,
    scores: workspace.scores,
    async probeBatch(wanted, runs) {
      const n = probeSamplesFor(model, shapes, { wanted, runs, rows: study.rows });
      for await (const first of batch(working.calib, fixedBatch ?? Math.min(n, working.calib.size))) return first;
      throw new FlowCompressError('bad-input', 'There are no calibration samples.', { hint: 'Give more data.' });
    },
    flow: () => flowSource(model, layers, shapes),
  };
}

function flowSource(model: ModelProto, layers: readonly WeightLayer[], shapes: TracedValues): FlowSource {
  const graph = new Graph(model);
  const probes = magnitudeProbes(graph, layers, findAttention(graph, layers, shapes).blocks);
  return {
    probes: probes.probes,
    result() {
      const { layers: flows } = probes.result();
      return new Map(layers.map((layer) => [layer.name, sensitivityInput(graph, layer, flows.get(layer.name)!.flow)]));
    },
  };
}

function sensitivityInput(graph: Graph, layer: WeightLayer, flow: number): SensitivityInput {
  const weights = weightMatrix(graph, layer);
  let sum = 0;
  let squares = 0;
  for (const w of weights) {
    sum += w;
    squares += w * w;
  }
  const mean = sum / weights.length;
  const variance = Math.max(0, squares / weights.length - mean * mean);
  return {
    flow,
    weightMean: mean,
    weightStd: Math.sqrt(variance),
    params: layer.params,
    weightNorm: Math.sqrt(squares),
  };
}
