/**
 * Batch normalization behind every convolution of a model, which computes the same: convolutions without it hardly learn. What
 * the normalizations have learned is folded into the convolutions afterwards.
 */
import type { ModelProto } from 'onnx-buf';
import type { Batch } from '../data/dataset.js';
import { floatAttribute } from '../onnx/attributes.js';
import { DataType } from '../onnx/dtypes.js';
import { Graph, type Node, type Value } from '../onnx/graph.js';
import { makeTensor } from '../onnx/tensor.js';
import type { RunControl } from '../progress.js';
import { channelMomentsProbe } from '../runtime/channel-moments.js';
import type { Engine } from '../runtime/engine.js';
import { runProbes } from '../runtime/probe.js';
import type { TracedValues } from '../runtime/trace.js';

export interface NormalizeRequest {
  readonly engine: Engine;
  /** Opset 14 or newer. */
  readonly model: ModelProto;
  /** Dims of every value for one sample. */
  readonly shapes: TracedValues;
  /** A fresh pass over samples whose statistics are taken. */
  readonly batches: () => AsyncIterable<Batch>;
  readonly samples: number;
}

const EPSILON = 1e-5;
/** Variance of channels that never change. */
const LEAST_VARIANCE = 1e-8;

/** Errors as `runProbes`. @returns the model itself when it has no convolution to normalize behind */
export async function normalized(request: NormalizeRequest, control: RunControl = {}): Promise<ModelProto> {
  const { engine, model, shapes, samples } = request;
  const graph = new Graph(model);
  const found = graph.nodes.filter((node) => isBare(graph, node));
  if (found.length === 0) return model;
  const probes = found.map((node) => channelMomentsProbe(node.outputs[0]!.name, shapes));
  await runProbes(
    { engine, model, shapes, batches: request.batches(), probes, total: samples, stage: 'normalize' },
    control,
  );
  for (const [i, { outputs }] of found.entries()) {
    const output = outputs[0]!;
    const moments = probes[i]!.result();
    const mean = Float32Array.from(moments.mean);
    const variance = Float32Array.from(moments.variance, (v) => Math.max(v, LEAST_VARIANCE));
    const vector = (part: string, values: Float32Array): Value =>
      graph.addInitializer(
        makeTensor(graph.uniqueName(`${output.name} ${part}`), DataType.FLOAT, [values.length], values),
      );
    const uses = [...output.uses];
    const norm = graph.insertOp(
      'BatchNormalization',
      [
        output,
        // Together with the statistics this changes nothing.
        vector(
          'gamma',
          variance.map((v) => Math.sqrt(v + EPSILON)),
        ),
        vector('beta', mean),
        vector('mean', mean),
        vector('variance', variance),
      ],
      [floatAttribute('epsilon', EPSILON)],
    );
    for (const { node, index } of uses) graph.setInput(node, index, norm);
  }
  return graph.toModel();
}

/** A convolution whose result is not normalized yet, and is not what the model gives. */
function isBare(graph: Graph, node: Node): boolean {
  const [output] = node.outputs;
  if (!node.is('Conv') || !output || graph.isGraphOutput(output) || !graph.constant(node.inputs[1])) return false;
  return [...output.uses].every((use) => use.index >= 0 && !use.node.is('BatchNormalization'));
}
