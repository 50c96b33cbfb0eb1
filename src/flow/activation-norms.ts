/** Norms of a layer's post-activation output and of its activation's derivative, one number per sample. */
import { FlowCompressError } from '../errors.js';
import type { Value } from '../onnx/graph.js';
import type { WeightLayer } from '../onnx/layers.js';
import type { Probe } from '../runtime/probe.js';
import { activationSlope, type PostActivation } from './post-activation.js';
import {
  layoutOf,
  rowsOfSamples,
  sampled,
  samplesFirst,
  squaredNorms,
  sumPerSample,
  tracedRows,
} from './sample-axis.js';

/** Of one sample. */
export interface SampleNorms {
  /** ||A||. */
  readonly output: number;
  /** ||sigma'(z)||; sqrt(size) without an activation function. */
  readonly slope: number;
  /** Elements of A. */
  readonly size: number;
}

export interface ActivationMoments {
  /** E[a^2] - E[a]^2 over all elements and samples; 0 unless asked for. */
  readonly variance: number;
}

export interface ActivationNormsProbe extends Probe {
  readonly moments: ActivationMoments;
}

export interface ActivationNormsOptions {
  /** Whether sigma' is needed; without it `slope` is that of the identity. */
  slope: boolean;
  moments: boolean;
  onSample: (sample: SampleNorms) => void;
}

export function activationNormsProbe(
  layer: WeightLayer,
  activation: PostActivation,
  options: ActivationNormsOptions,
): ActivationNormsProbe {
  let size = 0;
  let uniformSlope: number | undefined = 1;
  let sum = 0;
  let sumSquares = 0;
  let elements = 0;
  return {
    attach(context) {
      const { graph, shapes } = context;
      const layout = layoutOf(shapes.get(activation.output)?.dims ?? [], tracedRows(graph, shapes));
      ({ size } = layout);
      const wanted: Value[] = [squaredNorms(context, activation.output)];
      if (options.moments) wanted.push(sumPerSample(graph, sampled(context, activation.output), 'ReduceSum'));
      const slope = options.slope ? activationSlope(graph, activation) : 1;
      uniformSlope = typeof slope === 'number' ? slope : undefined;
      if (typeof slope !== 'number') {
        wanted.push(sumPerSample(graph, samplesFirst(graph, slope, layout), 'ReduceSumSquare'));
      }
      return wanted;
    },
    update(values, batch) {
      const rows = values.map((tensor) => rowsOfSamples(tensor, batch));
      const [squares] = rows;
      const sums = options.moments ? rows[1] : undefined;
      const slopes = uniformSlope === undefined ? rows[rows.length - 1] : undefined;
      if (!squares || (options.moments && !sums) || (uniformSlope === undefined && !slopes)) throw notPerSample(layer);
      for (let i = 0; i < squares.length; i++) {
        const slope = uniformSlope === undefined ? Math.sqrt(slopes![i]!) : Math.abs(uniformSlope) * Math.sqrt(size);
        options.onSample({ output: Math.sqrt(squares[i]!), slope, size });
        if (!sums || !Number.isFinite(squares[i])) continue;
        sum += sums[i]!;
        sumSquares += squares[i]!;
        elements += size;
      }
    },
    moments: {
      get variance() {
        const mean = sum / Math.max(elements, 1);
        return Math.max(0, sumSquares / Math.max(elements, 1) - mean * mean);
      },
    },
  };
}

/** The error for an activation whose rows do not belong to samples, one to one. */
export function notPerSample(layer: { readonly name: string }): FlowCompressError {
  return new FlowCompressError('unsupported', `The output of '${layer.name}' cannot be divided among the samples.`, {
    node: layer.name,
    hint: 'Models whose inner batch depends on the data (such as regions per image) cannot be profiled.',
  });
}
