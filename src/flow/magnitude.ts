/**
 * flowMagnitude: how much signal a layer passes on, the product of the norms of its output and of its weights, per
 * sample and then averaged. It ranks layers for quantization and filters for pruning.
 *
 * Fully connected (Gemm, MatMul, embeddings): ||J(z)|| ||A|| ||W|| with J = diag(sigma'(z)).
 * Convolution: ||A|| ||W|| / |Omega|, Omega being the output elements.
 * Attention head: ||softmax(Q K^T) V|| (||W_Q|| + ||W_K|| + ||W_V||) / n with the head's rows of the weights; a layer that
 * makes Q, K or V carries the terms of its own weights, summed over heads, so that fused and separate layers add up alike.
 *
 * `norm: 'rms'` (default) divides every norm by the square root of what it runs over (elements; for ||W|| the output
 * channels) and drops 1/|Omega| and 1/n: layers of different type and size become comparable. `'paper'` keeps the lines above.
 */
import { FlowCompressError } from '../errors.js';
import type { Graph } from '../onnx/graph.js';
import { weightMatrix, type WeightLayer } from '../onnx/layers.js';
import type { Probe } from '../runtime/probe.js';
import type { AttentionBlock } from './attention.js';
import { headNormsProbe, type HeadNorms } from './head-norms.js';
import { activationNormsProbe, type ActivationMoments, type SampleNorms } from './activation-norms.js';
import { postActivation } from './post-activation.js';
import { running, type Running } from './running.js';

export type FlowNorm = 'rms' | 'paper';
/** `cv`: divide by 1 + squared coefficient of variation over samples. `paper`: by 1 + var / max var of the activations. */
export type FlowDamping = 'cv' | 'paper' | 'none';

export interface MagnitudeOptions {
  norm?: FlowNorm;
  damping?: FlowDamping;
}

export interface LayerMagnitude {
  /** Mean over samples, damped. */
  readonly flow: number;
  /** Mean over samples. */
  readonly flowRaw: number;
  /** Standard deviation over samples divided by the mean. */
  readonly cv: number;
  /** Samples behind the mean. */
  readonly samples: number;
  /** Samples left out because the activations were infinite or NaN. */
  readonly skipped: number;
}

export interface MagnitudeResult {
  /** By layer name; every layer is there. */
  readonly layers: ReadonlyMap<string, LayerMagnitude>;
  /** Per attention block, mean flow of each head. */
  readonly heads: readonly (readonly number[])[];
}

export interface MagnitudeProbes {
  /** To be run in one pass, alone or among others. */
  readonly probes: Probe[];
  /** @throws FlowCompressError `bad-input` when a layer's activations were not finite on any sample, `internal` before a pass. */
  result(): MagnitudeResult;
}

/**
 * Probes that measure the flow of every layer in one streaming pass. Memory does not depend on the samples; no whole
 * activation leaves the engine.
 * @param graph the prepared model: batch normalization folded, samples on the first axis
 */
export function magnitudeProbes(
  graph: Graph,
  layers: readonly WeightLayer[],
  attention: readonly AttentionBlock[],
  options: MagnitudeOptions = {},
): MagnitudeProbes {
  const norm = options.norm ?? 'rms';
  const damping = options.damping ?? 'cv';
  const flows = new Map<string, Running>(layers.map((layer) => [layer.name, running()]));
  const moments = new Map<string, ActivationMoments>();
  const headFlows = attention.map((block) => Array.from({ length: block.heads }, () => running()));
  const probes: Probe[] = [];
  const projecting = new Map<WeightLayer, AttentionBlock[]>();
  for (const block of attention) {
    for (const layer of new Set([block.q.layer, block.k.layer, block.v.layer])) {
      projecting.set(layer, [...(projecting.get(layer) ?? []), block]);
    }
  }

  for (const layer of layers) {
    const inAttention = projecting.has(layer);
    if (inAttention && damping !== 'paper') continue;
    const scale = weightScale(layer, frobenius(weightMatrix(graph, layer)), norm);
    const flow = flows.get(layer.name)!;
    const convolution = layer.op === 'Conv' || layer.op === 'ConvTranspose';
    const probe = activationNormsProbe(layer, postActivation(graph, layer.output), {
      slope: !convolution && !inAttention,
      moments: damping === 'paper',
      onSample(sample) {
        if (!inAttention) flow.add(layerFlow(sample, scale, convolution, norm));
      },
    });
    probes.push(probe);
    moments.set(layer.name, probe.moments);
  }

  // A layer that serves several blocks (attention computed twice from the same keys) adds up over them.
  const shared = new Map<WeightLayer, { blocks: number; sums: Float64Array }>();
  attention.forEach((block, b) => {
    const terms = headTerms(graph, block, norm);
    probes.push(
      headNormsProbe(block, (norms, samples) => {
        for (let sample = 0; sample < samples; sample++) {
          for (let head = 0; head < block.heads; head++) {
            const base = headBase(norms, sample * block.heads + head, norm);
            headFlows[b]![head]!.add(base * terms.total[head]!);
          }
        }
        for (const [layer, weights] of terms.byLayer) {
          const sums = Float64Array.from({ length: samples }, (_, sample) => {
            let sum = 0;
            for (let head = 0; head < block.heads; head++) {
              sum += headBase(norms, sample * block.heads + head, norm) * weights[head]!;
            }
            return sum;
          });
          const entry = shared.get(layer);
          const total = entry ? entry.sums.map((v, i) => v + sums[i]!) : sums;
          const blocks = (entry?.blocks ?? 0) + 1;
          if (blocks < projecting.get(layer)!.length) {
            shared.set(layer, { blocks, sums: total });
            continue;
          }
          shared.delete(layer);
          for (const value of total) flows.get(layer.name)!.add(value);
        }
      }),
    );
  });

  return {
    probes,
    result() {
      const largest = Math.max(0, ...[...moments.values()].map((m) => m.variance));
      const result = new Map<string, LayerMagnitude>();
      for (const layer of layers) {
        const flow = finiteFlow(layer, flows.get(layer.name)!);
        const cv = flow.mean > 0 ? Math.sqrt(flow.variance) / flow.mean : 0;
        const variance = moments.get(layer.name)?.variance ?? 0;
        const damp = { cv: cv * cv, paper: largest > 0 ? variance / largest : 0, none: 0 }[damping];
        const { mean, count: samples, skipped } = flow;
        result.set(layer.name, { flow: mean / (1 + damp), flowRaw: mean, cv, samples, skipped });
      }
      return { layers: result, heads: headFlows.map((heads) => heads.map((head) => head.mean)) };
    },
  };
}

function finiteFlow(layer: WeightLayer, flow: Running): Running {
  if (flow.count > 0) return flow;
  if (flow.skipped === 0) throw new FlowCompressError('internal', 'No sample was seen.', { node: layer.name });
  throw new FlowCompressError('bad-input', `The activations of '${layer.name}' are infinite or NaN on every sample.`, {
    node: layer.name,
    hint: 'Check the preprocessing of the data, and that the model works on it before it is compressed.',
  });
}

/** ||W|| as the norm of the chosen kind counts it. Of an embedding the typical row counts, since a sample reads single rows. */
function weightScale(layer: WeightLayer, weightNorm: number, norm: FlowNorm): number {
  return norm === 'rms' ? weightNorm / Math.sqrt(layer.channels) : weightNorm;
}

function layerFlow(sample: SampleNorms, scale: number, convolution: boolean, norm: FlowNorm): number {
  const { output, slope, size } = sample;
  if (norm === 'paper') return convolution ? (output * scale) / size : slope * output * scale;
  const rms = output / Math.sqrt(size);
  return convolution ? rms * scale : (slope / Math.sqrt(size)) * rms * scale;
}

function headBase({ norms, elements, tokens }: HeadNorms, at: number, norm: FlowNorm): number {
  return norm === 'rms' ? norms[at]! / Math.sqrt(elements) : norms[at]! / tokens;
}

interface HeadTerms {
  /** [heads]: ||W_Q|| + ||W_K|| + ||W_V|| of each head. */
  readonly total: Float64Array;
  /** The part of it that belongs to each layer. */
  readonly byLayer: ReadonlyMap<WeightLayer, Float64Array>;
}

function headTerms(graph: Graph, block: AttentionBlock, norm: FlowNorm): HeadTerms {
  const total = new Float64Array(block.heads);
  const byLayer = new Map<WeightLayer, Float64Array>();
  for (const { layer, headChannels } of [block.q, block.k, block.v]) {
    const own = byLayer.get(layer) ?? new Float64Array(block.heads);
    byLayer.set(layer, own);
    const squares = channelSquares(layer, weightMatrix(graph, layer));
    headChannels.forEach((channels, head) => {
      let sum = 0;
      for (const channel of channels) sum += squares[channel]!;
      const weight = Math.sqrt(norm === 'rms' ? sum / channels.length : sum);
      own[head]! += weight;
      total[head]! += weight;
    });
  }
  return { total, byLayer };
}

/** [channels]: squared norm of the weights of each output channel. */
function channelSquares(layer: WeightLayer, matrix: Float32Array): Float64Array {
  const squares = new Float64Array(layer.channels);
  const perChannel = matrix.length / layer.channels;
  for (let i = 0; i < matrix.length; i++) squares[Math.floor(i / perChannel)]! += matrix[i]! * matrix[i]!;
  return squares;
}

function frobenius(values: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i]! * values[i]!;
  return Math.sqrt(sum);
}
