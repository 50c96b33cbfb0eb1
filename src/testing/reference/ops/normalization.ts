/** Normalizations: elements are set to mean 0 and variance 1, or to length 1, then scaled and shifted. */
import type { Node } from '../../../onnx/graph.js';
import { array, at, axisOf, build, map, mapGroups, zip, type NdArray } from '../array.js';
import type { ReferenceOperator } from '../operator.js';
import { mean, reduced } from './reductions.js';

const variance = (values: readonly number[]): number => {
  const center = mean(values);
  return mean(values.map((v) => (v - center) ** 2));
};

function standardized(x: NdArray, axes: ReadonlySet<number>, epsilon: number): NdArray {
  return mapGroups(x, axes, (values) => {
    const [center, spread] = [mean(values), Math.sqrt(variance(values) + epsilon)];
    return values.map((v) => (v - center) / spread);
  });
}

/** x * scale + bias with one scale and bias for every channel, which is axis 1. */
function perChannel(x: NdArray, scale: NdArray, bias: NdArray | undefined): NdArray {
  return build(x.dims, (index) => {
    const channel = index[1] ?? 0;
    return at(x, index) * scale.data[channel]! + (bias?.data[channel] ?? 0);
  });
}

const batchNormalization: ReferenceOperator = ([x, scale, bias, mean0, var0], node) => {
  const epsilon = node.float('epsilon', 1e-5);
  const training = node.int('training_mode', 0) === 1;
  const axes = new Set([...x!.dims.keys()].filter((axis) => axis !== 1));
  const means = training ? reduced(x!, axes, false, mean) : mean0!;
  const variances = training ? reduced(x!, axes, false, variance) : var0!;
  const factors = zip((s, v) => s / Math.sqrt(v + epsilon), scale!, variances);
  const shifts = zip((b, m, f) => b - m * f, bias!, means, factors);
  const y = perChannel(x!, factors, shifts);
  if (!training) return [y];
  const momentum = node.float('momentum', 0.9);
  const running = (old: NdArray, now: NdArray): NdArray => zip((a, b) => a * momentum + b * (1 - momentum), old, now);
  return [y, running(mean0!, means), running(var0!, variances)];
};

/** The axes from attribute `axis` on. */
function trailingAxes(x: NdArray, node: Node): Set<number> {
  const first = axisOf(node.int('axis', -1), x.dims.length);
  return new Set([...x.dims.keys()].filter((axis) => axis >= first));
}

const layerNormalization: ReferenceOperator = ([x, scale, bias], node) => {
  const epsilon = node.float('epsilon', 1e-5);
  const axes = trailingAxes(x!, node);
  const y = zip((v, s, b) => v * s + b, standardized(x!, axes, epsilon), scale!, bias ?? array([], [0]));
  const inverse = map(reduced(x!, axes, true, variance), (v) => 1 / Math.sqrt(v + epsilon));
  return [y, reduced(x!, axes, true, mean), inverse];
};

const rmsNormalization: ReferenceOperator = ([x, scale], node) => {
  const epsilon = node.float('epsilon', 1e-5);
  const normalized = mapGroups(x!, trailingAxes(x!, node), (values) => {
    const root = Math.sqrt(mean(values.map((v) => v * v)) + epsilon);
    return values.map((v) => v / root);
  });
  return [zip((v, s) => v * s, normalized, scale!)];
};

/** Up to opset 20 there is one scale and bias for every group, then one for every channel. */
const groupNormalization: ReferenceOperator = ([x, scale, bias], node, opset) => {
  const [groups, channels] = [node.int('num_groups', 1), x!.dims[1]!];
  const grouped = array([x!.dims[0]!, groups, x!.data.length / (x!.dims[0]! * groups)], x!.data);
  const normalized = standardized(grouped, new Set([2]), node.float('epsilon', 1e-5));
  const perGroup = (values: NdArray): NdArray =>
    build([channels], ([c]) => values.data[Math.floor((c! * groups) / channels)]!);
  const [s, b] = opset >= 21 ? [scale!, bias!] : [perGroup(scale!), perGroup(bias!)];
  return [perChannel(array(x!.dims, normalized.data), s, b)];
};

const instanceNormalization: ReferenceOperator = ([x, scale, bias], node) => {
  const axes = new Set([...x!.dims.keys()].filter((axis) => axis > 1));
  return [perChannel(standardized(x!, axes, node.float('epsilon', 1e-5)), scale!, bias)];
};

/** Local response normalization across channels. */
const lrn: ReferenceOperator = ([x], node) => {
  const size = node.int('size', 1);
  const [alpha, beta, bias] = [node.float('alpha', 1e-4), node.float('beta', 0.75), node.float('bias', 1)];
  const channels = x!.dims[1]!;
  return [
    build(x!.dims, (index) => {
      const [n, c, ...rest] = index;
      const from = Math.max(0, c! - Math.floor((size - 1) / 2));
      const to = Math.min(channels - 1, c! + Math.ceil((size - 1) / 2));
      let sum = 0;
      for (let i = from; i <= to; i++) sum += at(x!, [n!, i, ...rest]) ** 2;
      return at(x!, index) / (bias + (alpha / size) * sum) ** beta;
    }),
  ];
};

const lpNormalization: ReferenceOperator = ([x], node) => {
  const p = node.int('p', 2);
  return [
    mapGroups(x!, new Set([axisOf(node.int('axis', -1), x!.dims.length)]), (values) => {
      const norm = values.reduce((sum, v) => sum + Math.abs(v) ** p, 0) ** (1 / p);
      return values.map((v) => (norm === 0 ? 0 : v / norm));
    }),
  ];
};

const meanVarianceNormalization: ReferenceOperator = ([x], node) => {
  const axes = (node.ints('axes') ?? [0, 2, 3]).map((axis) => axisOf(axis, x!.dims.length));
  return [
    mapGroups(x!, new Set(axes), (values) => {
      const [center, spread] = [mean(values), Math.sqrt(variance(values)) + 1e-9];
      return values.map((v) => (v - center) / spread);
    }),
  ];
};

export const normalization: Readonly<Record<string, ReferenceOperator>> = {
  BatchNormalization: batchNormalization,
  LayerNormalization: layerNormalization,
  RMSNormalization: rmsNormalization,
  GroupNormalization: groupNormalization,
  InstanceNormalization: instanceNormalization,
  LRN: lrn,
  LpNormalization: lpNormalization,
  MeanVarianceNormalization: meanVarianceNormalization,
};
