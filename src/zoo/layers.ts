/** Building blocks of all architectures: each adds named nodes to a network and returns its output. Images are [N, C, H, W]. */
import { floatAttribute, intAttribute, intsAttribute } from '../onnx/attributes.js';
import type { Value } from '../onnx/graph.js';
import { constant, kaimingNormal, lecunUniform, ones, zeros, type Init } from './init.js';
import { product, type Net } from './net.js';

export interface ConvOptions {
  /** Side of the kernel, or [height, width]. */
  readonly kernel: number | readonly [number, number];
  readonly stride?: number;
  /** Zeros on every side; half the kernel by default, which keeps the size at stride 1. */
  readonly padding?: number;
  readonly groups?: number;
  /** Off by default: a normalization follows. */
  readonly bias?: boolean;
  readonly init?: Init;
}

/** Convolution to `outputs` channels; weight [outputs, inputs / groups, kh, kw]. */
export function conv(net: Net, x: Value, name: string, outputs: number, options: ConvOptions): Value {
  const { kernel, stride = 1, groups = 1, bias = false, init = kaimingNormal('out') } = options;
  const [, inputs = 0, height = 0, width = 0] = net.dims(x);
  const [kh, kw] = typeof kernel === 'number' ? [kernel, kernel] : kernel;
  const [ph, pw] = [kh, kw].map((side) => options.padding ?? Math.floor(side / 2)) as [number, number];
  const fans = { fanIn: (inputs / groups) * kh * kw, fanOut: (outputs / groups) * kh * kw };
  const weight = net.parameter(`${name}.weight`, [outputs, inputs / groups, kh, kw], init, fans);
  const parameters = bias ? [weight, net.parameter(`${name}.bias`, [outputs], zeros)] : [weight];
  const out = (size: number, side: number, pad: number): number => Math.floor((size + 2 * pad - side) / stride) + 1;
  const y = net.op(
    name,
    'Conv',
    [x, ...parameters],
    [1, outputs, out(height, kh, ph), out(width, kw, pw)],
    [
      intsAttribute('kernel_shape', [kh, kw]),
      intsAttribute('strides', [stride, stride]),
      intsAttribute('pads', [ph, pw, ph, pw]),
      intAttribute('group', groups),
    ],
  );
  const inside = coverage(height, kh, stride, ph) * coverage(width, kw, stride, pw);
  return net.setEnergy(y, inside * fans.fanIn * net.energy(weight) * net.energy(x));
}

/** Share of the kernel's taps along one axis that see the image and not its padding: on small maps far from all. */
function coverage(size: number, side: number, stride: number, padding: number): number {
  const outputs = Math.floor((size + 2 * padding - side) / stride) + 1;
  let taps = 0;
  for (let i = 0; i < outputs; i++) {
    const start = i * stride - padding;
    taps += Math.min(start + side, size) - Math.max(start, 0);
  }
  return taps / (outputs * side);
}

export interface ConvTransposeOptions {
  readonly kernel: number;
  readonly stride: number;
  readonly padding?: number;
  readonly bias?: boolean;
  readonly init?: Init;
}

/** Transposed convolution; weight [inputs, outputs, k, k], size (n - 1) stride - 2 padding + k. */
export function convTranspose(net: Net, x: Value, name: string, outputs: number, options: ConvTransposeOptions): Value {
  const { kernel, stride, padding = 0, bias = false, init = kaimingNormal('in') } = options;
  const [, inputs = 0, height = 0, width = 0] = net.dims(x);
  // Every output element sees the kernel's taps in steps of the stride only.
  const taps = Math.max(1, kernel / stride) ** 2;
  const fans = { fanIn: inputs * taps, fanOut: outputs * kernel * kernel };
  const weight = net.parameter(`${name}.weight`, [inputs, outputs, kernel, kernel], init, fans);
  const parameters = bias ? [weight, net.parameter(`${name}.bias`, [outputs], zeros)] : [weight];
  const out = (size: number): number => (size - 1) * stride - 2 * padding + kernel;
  const y = net.op(
    name,
    'ConvTranspose',
    [x, ...parameters],
    [1, outputs, out(height), out(width)],
    [
      intsAttribute('kernel_shape', [kernel, kernel]),
      intsAttribute('strides', [stride, stride]),
      intsAttribute('pads', [padding, padding, padding, padding]),
    ],
  );
  return net.setEnergy(y, fans.fanIn * net.energy(weight) * net.energy(x));
}

export interface NormOptions {
  readonly epsilon?: number;
  /** Share of the old running statistics that a training step keeps (1 minus the momentum of PyTorch). */
  readonly momentum?: number;
  /** Initial scale, 1 by default. */
  readonly scale?: Init;
}

/**
 * Batch normalization by running statistics; training switches the node to the statistics of the batch. The running
 * variance starts at what standard normal images would give, so that an untrained network computes about the same either way.
 */
export function batchNorm(net: Net, x: Value, name: string, options: NormOptions = {}): Value {
  const { epsilon = 1e-5, momentum = 0.9, scale = ones } = options;
  const dims = net.dims(x);
  const channels = [dims[1] ?? 0];
  const weight = net.parameter(`${name}.weight`, channels, scale);
  const y = net.op(
    name,
    'BatchNormalization',
    [
      x,
      weight,
      net.parameter(`${name}.bias`, channels, zeros),
      net.statistic(`${name}.running_mean`, channels, zeros),
      net.statistic(`${name}.running_var`, channels, constant(net.energy(x))),
    ],
    dims,
    [floatAttribute('epsilon', epsilon), floatAttribute('momentum', momentum)],
  );
  return net.setEnergy(y, net.energy(weight));
}

/** Normalization of the last axis. */
export function layerNorm(net: Net, x: Value, name: string, epsilon = 1e-6): Value {
  const dims = net.dims(x);
  const last = [dims.at(-1) ?? 0];
  const weight = net.parameter(`${name}.weight`, last, ones);
  const bias = net.parameter(`${name}.bias`, last, zeros);
  const attributes = [intAttribute('axis', -1), floatAttribute('epsilon', epsilon)];
  return net.op(name, 'LayerNormalization', [x, weight, bias], dims, attributes);
}

export interface LinearOptions {
  readonly bias?: boolean;
  readonly init?: Init;
  readonly biasInit?: Init;
}

/**
 * Fully connected layer on the last axis: for a matrix one Gemm with weight [outputs, inputs], for tokens MatMul with
 * weight [inputs, outputs] and Add.
 */
export function linear(net: Net, x: Value, name: string, outputs: number, options: LinearOptions = {}): Value {
  const { bias = true, init = lecunUniform, biasInit = zeros } = options;
  const dims = net.dims(x);
  const inputs = dims.at(-1) ?? 0;
  const fans = { fanIn: inputs, fanOut: outputs };
  const outputDims = [...dims.slice(0, -1), outputs];
  if (dims.length === 2) {
    const weight = net.parameter(`${name}.weight`, [outputs, inputs], init, fans);
    const parameters = bias ? [weight, net.parameter(`${name}.bias`, [outputs], biasInit, fans)] : [weight];
    return net.op(name, 'Gemm', [x, ...parameters], outputDims, [intAttribute('transB', 1)]);
  }
  const weight = net.parameter(`${name}.weight`, [inputs, outputs], init, fans);
  const matmul = net.op(name, 'MatMul', [x, weight], outputDims);
  if (!bias) return matmul;
  return net.op(`${name}.add`, 'Add', [matmul, net.parameter(`${name}.bias`, [outputs], biasInit, fans)], outputDims);
}

export type Activation =
  'relu' | 'relu6' | 'leaky-relu' | 'hard-swish' | 'hard-sigmoid' | 'silu' | 'gelu' | 'sigmoid' | 'tanh';

/** Mean square of f(z) for standard normal z. */
const ENERGY: Readonly<Record<Activation, number>> = {
  relu: 0.5,
  relu6: 0.5,
  'leaky-relu': 0.52,
  'hard-swish': 0.332,
  'hard-sigmoid': 0.278,
  silu: 0.356,
  gelu: 0.425,
  sigmoid: 0.293,
  tanh: 0.394,
};

/** An element-wise non-linearity. */
export function activation(net: Net, x: Value, name: string, kind: Activation): Value {
  return net.setEnergy(applied(net, x, name, kind), ENERGY[kind] * net.energy(x));
}

function applied(net: Net, x: Value, name: string, kind: Activation): Value {
  const dims = net.dims(x);
  switch (kind) {
    case 'relu':
      return net.op(name, 'Relu', [x], dims);
    case 'relu6':
      return net.op(name, 'Clip', [x, net.scalar(0), net.scalar(6)], dims);
    case 'leaky-relu':
      return net.op(name, 'LeakyRelu', [x], dims, [floatAttribute('alpha', 0.2)]);
    case 'hard-swish':
      return net.op(name, 'HardSwish', [x], dims);
    case 'hard-sigmoid':
      return net.op(name, 'HardSigmoid', [x], dims, [floatAttribute('alpha', 1 / 6), floatAttribute('beta', 0.5)]);
    case 'silu':
      return net.op(name, 'Mul', [x, net.op(`${name}.gate`, 'Sigmoid', [x], dims)], dims);
    case 'gelu':
      return gelu(net, x, name);
    case 'sigmoid':
      return net.op(name, 'Sigmoid', [x], dims);
    case 'tanh':
      return net.op(name, 'Tanh', [x], dims);
  }
}

/** x (1 + erf(x / sqrt 2)) / 2; engines know this form and fuse it. */
function gelu(net: Net, x: Value, name: string): Value {
  const dims = net.dims(x);
  const scaled = net.op(`${name}.scaled`, 'Div', [x, net.scalar(Math.SQRT2)], dims);
  const erf = net.op(`${name}.erf`, 'Erf', [scaled], dims);
  const gate = net.op(`${name}.gate`, 'Add', [erf, net.scalar(1)], dims);
  const product = net.op(`${name}.product`, 'Mul', [x, gate], dims);
  return net.op(name, 'Mul', [product, net.scalar(0.5)], dims);
}

export interface ConvNormOptions extends ConvOptions {
  readonly norm?: NormOptions;
  /** Nothing follows the normalization by default. */
  readonly activation?: Activation;
}

/** Convolution, batch normalization and activation, named `.conv`, `.bn` and `.act`. */
export function convNorm(net: Net, x: Value, name: string, outputs: number, options: ConvNormOptions): Value {
  const y = batchNorm(net, conv(net, x, `${name}.conv`, outputs, options), `${name}.bn`, options.norm);
  return options.activation ? activation(net, y, `${name}.act`, options.activation) : y;
}

export interface PoolOptions {
  readonly kernel: number;
  readonly stride: number;
  readonly padding?: number;
}

/** Pooling over windows; padded places do not count. */
export function pool(net: Net, x: Value, name: string, kind: 'Max' | 'Average', options: PoolOptions): Value {
  const { kernel, stride, padding = 0 } = options;
  const [, channels = 0, height = 0, width = 0] = net.dims(x);
  const out = (size: number): number => Math.floor((size + 2 * padding - kernel) / stride) + 1;
  return net.op(
    name,
    `${kind}Pool`,
    [x],
    [1, channels, out(height), out(width)],
    [
      intsAttribute('kernel_shape', [kernel, kernel]),
      intsAttribute('strides', [stride, stride]),
      intsAttribute('pads', [padding, padding, padding, padding]),
    ],
  );
}

/** Mean of every channel, [N, C, 1, 1]. */
export function globalPool(net: Net, x: Value, name: string): Value {
  return net.op(name, 'GlobalAveragePool', [x], [1, net.dims(x)[1] ?? 0, 1, 1]);
}

/** [N, everything else]. */
export function flatten(net: Net, x: Value, name: string): Value {
  return net.op(name, 'Flatten', [x], [1, product(net.dims(x))]);
}

/** Mean of every channel, [N, C]. */
export function pooledFeatures(net: Net, x: Value): Value {
  return flatten(net, globalPool(net, x, 'pool'), 'flatten');
}

/** Dropout as it is served, a node without effect, which training switches on. A rate of 0 adds nothing. */
export function dropout(net: Net, x: Value, name: string, rate: number): Value {
  if (rate === 0) return x;
  return net.op(name, 'Dropout', [x, net.scalar(rate)], net.dims(x));
}

/** Sum of two values of equal shape. */
export function add(net: Net, a: Value, b: Value, name: string): Value {
  return net.setEnergy(net.op(name, 'Add', [a, b], net.dims(a)), net.energy(a) + net.energy(b));
}

export function concat(net: Net, values: Value[], name: string, axis = 1): Value {
  const dims = [...net.dims(values[0]!)];
  dims[axis] = values.reduce((sum, value) => sum + (net.dims(value)[axis] ?? 0), 0);
  const energy = values.reduce((sum, value) => sum + net.energy(value) * product(net.dims(value)), 0) / product(dims);
  return net.setEnergy(net.op(name, 'Concat', values, dims, [intAttribute('axis', axis)]), energy);
}

/** The elements start <= i < end of an axis, every `step`-th. */
export function slice(
  net: Net,
  x: Value,
  name: string,
  axes: readonly number[],
  { start, end, step = 1 }: { start: number; end?: number; step?: number },
): Value {
  const dims = net.dims(x).map((dim, axis) => {
    if (!axes.includes(axis)) return dim;
    const last = end === undefined ? dim : Math.min(end, dim);
    return Math.ceil((last - start) / step);
  });
  const repeated = (value: number): number[] => axes.map(() => value);
  return net.op(
    name,
    'Slice',
    [
      x,
      net.integers(`${name}.starts`, repeated(start)),
      net.integers(`${name}.ends`, repeated(end ?? Number.MAX_SAFE_INTEGER)),
      net.integers(`${name}.axes`, axes),
      net.integers(`${name}.steps`, repeated(step)),
    ],
    dims,
  );
}

/** Another shape of the same elements of every sample; `dims` are those behind the batch, one of them may be -1. */
export function reshape(net: Net, x: Value, name: string, dims: readonly number[]): Value {
  const fixed = dims.filter((dim) => dim !== -1);
  const open = product(net.dims(x)) / product(fixed);
  const shape = net.integers(`${name}.shape`, [0, ...dims]);
  return net.op(name, 'Reshape', [x, shape], [1, ...dims.map((dim) => (dim === -1 ? open : dim))]);
}

export function transpose(net: Net, x: Value, name: string, order: readonly number[]): Value {
  const dims = net.dims(x);
  const permuted = order.map((axis) => dims[axis] ?? 0);
  return net.op(name, 'Transpose', [x], permuted, [intsAttribute('perm', order)]);
}

export interface SqueezeExciteOptions {
  /** Channels of the bottleneck. */
  readonly squeezed: number;
  readonly activation: Activation;
  readonly gate: Activation;
}

/** Channels weighted by what their means say (Hu et al. 2018). */
export function squeezeExcite(net: Net, x: Value, name: string, options: SqueezeExciteOptions): Value {
  const channels = net.dims(x)[1] ?? 0;
  const pooled = globalPool(net, x, `${name}.pool`);
  const squeezed = conv(net, pooled, `${name}.fc1`, options.squeezed, { kernel: 1, bias: true });
  const active = activation(net, squeezed, `${name}.act`, options.activation);
  const excited = conv(net, active, `${name}.fc2`, channels, { kernel: 1, bias: true });
  const gate = activation(net, excited, `${name}.gate`, options.gate);
  // Gates around one half, the wider the more their arguments vary.
  const open = 0.25 + Math.min(0.25, net.energy(excited) / 20);
  return net.setEnergy(net.op(name, 'Mul', [x, gate], net.dims(x)), net.energy(x) * open);
}

/** A learned factor per element of the last axis, all equal at first (LayerScale). */
export function layerScale(net: Net, x: Value, name: string, initial: number): Value {
  const scale = net.parameter(`${name}.weight`, [net.dims(x).at(-1) ?? 0], constant(initial));
  return net.op(name, 'Mul', [x, scale], net.dims(x));
}
