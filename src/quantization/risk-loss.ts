/**
 * Losses whose gradients say what a change of the weights would do to the outputs. Each adds its own inputs to the graph,
 * which are filled anew for every batch; rows that pad a batch count nothing.
 */
import { TensorProto_DataType as DataType } from 'onnx-buf';
import { randomStream, seedOf } from '../data/random.js';
import type { Graph, Value } from '../onnx/graph.js';
import { formula, reduce, reduceKeeping, toFloat } from '../onnx/ops.js';
import { tensorInfo } from '../onnx/value-info.js';
import { LOSSES } from '../training/losses.js';
import { classTargets } from '../training/targets.js';

/**
 * `labels`: cross-entropy with the labels of the data. `drawn-labels`: cross-entropy with a label that is drawn for every
 * sample from the network's own probabilities; the expected squares of its gradients are the Fisher information, which
 * is the curvature of KL(p || p changed). `random-signs`: every output element times a random sign; the expected squares
 * of its gradients are those of the Jacobian of the outputs (Hutchinson), the curvature of their squared error.
 * `squares`: the mean square of the outputs, what the published method takes without labels.
 */
export type RiskLossKind = 'labels' | 'drawn-labels' | 'random-signs' | 'squares';

export interface RiskLossOptions {
  readonly kind: RiskLossKind;
  /** Float32 values of the graph that the loss reads: the logits [N, classes, ...], or any outputs for the last two kinds. */
  readonly outputs: readonly Value[];
  readonly dimsOf: (value: Value) => readonly number[];
  /** N, padding included. */
  readonly rows: number;
  readonly seed: number;
}

/** What is known of a batch when its inputs are filled. */
export interface BatchSamples {
  /** Position of the first sample in the data. */
  readonly first: number;
  /** Samples; rows beyond them are padding. */
  readonly size: number;
  readonly labels?: Int32Array | undefined;
}

/** An input of the graph, of one number per element of an output. */
export interface LossInput {
  readonly value: Value;
  readonly dims: readonly number[];
  fill(batch: BatchSamples): Float32Array;
}

export interface RiskLoss {
  /** A float scalar: the mean over the samples of a batch. */
  readonly value: Value;
  readonly inputs: readonly LossInput[];
}

/** Inserts the loss behind its outputs. */
export function insertRiskLoss(graph: Graph, options: RiskLossOptions): RiskLoss {
  switch (options.kind) {
    case 'labels':
      return labelLoss(graph, options);
    case 'drawn-labels':
      return drawnLabelLoss(graph, options);
    case 'random-signs':
      return randomSignLoss(graph, options);
    case 'squares':
      return squareLoss(graph, options);
  }
}

function labelLoss(graph: Graph, { outputs: [output], dimsOf }: RiskLossOptions): RiskLoss {
  const dims = dimsOf(output!);
  const target = lossInput(graph, 'target', dims, ({ labels = new Int32Array(), size }) => {
    const data = new Float32Array(elementsOf(dims));
    data.set(classTargets(labels, dims[1]!).data as Float32Array);
    return data.map((probability) => probability / size);
  });
  return { value: crossEntropy(graph, output!, target.value, dims.length), inputs: [target] };
}

/** The label is where logits + Gumbel noise are greatest, which is a draw from their softmax. */
function drawnLabelLoss(graph: Graph, { outputs: [output], dimsOf, rows, seed }: RiskLossOptions): RiskLoss {
  const dims = dimsOf(output!);
  const noise = lossInput(graph, 'noise', dims, (batch) =>
    filled(dims, rows, batch, (sample) => {
      const random = randomStream(seedOf(seed, sample));
      return () => -Math.log(-Math.log(random.float()));
    }),
  );
  const share = lossInput(graph, 'share', dims, (batch) => filled(dims, rows, batch, () => () => 1 / batch.size));
  const op = formula(graph);
  const noisy = op('Add', output!, noise.value);
  const drawn = toFloat(graph, op('Equal', noisy, reduceKeeping(graph, 'ReduceMax', noisy, [1])));
  return { value: crossEntropy(graph, output!, op('Mul', drawn, share.value), dims.length), inputs: [noise, share] };
}

/** -sum target log softmax(output), the targets holding each sample's share of the mean. */
function crossEntropy(graph: Graph, output: Value, target: Value, rank: number): Value {
  return reduce(graph, 'ReduceSum', LOSSES['cross-entropy']({ graph, output, target, rank, temperature: 1 }));
}

/** Sum of the output elements of a sample times random signs, over the root of their number. */
function randomSignLoss(graph: Graph, { outputs, dimsOf, rows, seed }: RiskLossOptions): RiskLoss {
  const scale = 1 / Math.sqrt(perSample(outputs.map(dimsOf), rows));
  const inputs = outputs.map((output, i) => {
    const dims = dimsOf(output);
    return lossInput(graph, 'signs', dims, (batch) =>
      filled(dims, rows, batch, (sample) => {
        const random = randomStream(seedOf(seed, i, sample));
        return () => (random.int(2) === 0 ? scale : -scale) / batch.size;
      }),
    );
  });
  return { value: weightedSum(graph, outputs, inputs), inputs };
}

function squareLoss(graph: Graph, { outputs, dimsOf, rows }: RiskLossOptions): RiskLoss {
  const scale = 1 / perSample(outputs.map(dimsOf), rows);
  const inputs = outputs.map((output) => {
    const dims = dimsOf(output);
    return lossInput(graph, 'share', dims, (batch) => filled(dims, rows, batch, () => () => scale / batch.size));
  });
  const squares = outputs.map((output) => graph.insertOp('Mul', [output, output]));
  return { value: weightedSum(graph, squares, inputs), inputs };
}

function weightedSum(graph: Graph, values: readonly Value[], weights: readonly LossInput[]): Value {
  const sums = values.map((value, i) => reduce(graph, 'ReduceSum', graph.insertOp('Mul', [value, weights[i]!.value])));
  return sums.length === 1 ? sums[0]! : graph.insertOp('Sum', sums);
}

function lossInput(graph: Graph, name: string, dims: readonly number[], fill: LossInput['fill']): LossInput {
  return { value: graph.addInput(tensorInfo(name, DataType.FLOAT, dims)), dims, fill };
}

/**
 * Numbers of the shape of an output, sample by sample; 0 in rows of padding. An output that is not divided among the rows
 * is filled as that of the first sample.
 * @param start makes the source of one sample's numbers
 */
function filled(
  dims: readonly number[],
  rows: number,
  { first, size }: BatchSamples,
  start: (sample: number) => () => number,
): Float32Array {
  const data = new Float32Array(elementsOf(dims));
  const divided = (dims[0] ?? 1) % rows === 0;
  const length = divided ? data.length / rows : data.length;
  for (let row = 0; row < (divided ? size : 1); row++) {
    const next = start(first + row);
    for (let i = row * length; i < (row + 1) * length; i++) data[i] = next();
  }
  return data;
}

/** Elements of all outputs together, for one sample. */
function perSample(outputs: readonly (readonly number[])[], rows: number): number {
  return outputs.reduce((sum, dims) => sum + elementsOf(dims), 0) / rows;
}

function elementsOf(dims: readonly number[]): number {
  return dims.reduce((a, b) => a * b, 1);
}
