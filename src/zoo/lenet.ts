/** LeNet-5 (LeCun et al. 1998, Gradient-Based Learning Applied to Document Recognition) and a modern form of it. */
import type { Value } from '../onnx/graph.js';
import type { Architecture } from './architecture.js';
import { kaimingNormal, xavierUniform } from './init.js';
import { activation, batchNorm, conv, dropout, flatten, linear, pool } from './layers.js';
import type { Net } from './net.js';
import { scaled, sizeAtLeast, type ZooSettings } from './options.js';

const HALVING = { kernel: 2, stride: 2 } as const;

/**
 * | layer | C1 | S2 | C3 | S4 | C5 | F6 | output |
 * |---|---|---|---|---|---|---|---|
 * | channels | 6, 5x5 | 6 | 16, 5x5 | 16 | 120 | 84 | classes |
 * As it is built today: every map of C3 sees all of S2, pooling has no coefficients, the output is linear. Images smaller
 * than the paper's 32 x 32 (MNIST: 28) are padded by C1.
 */
function lenet5(net: Net, { inputSize, channels, classes, width }: ZooSettings): void {
  const init = xavierUniform;
  const padding = Math.max(0, Math.ceil((32 - inputSize) / 2));
  const tanh = (x: Value, name: string): Value => activation(net, x, `${name}.tanh`, 'tanh');
  let x = net.input([channels, inputSize, inputSize]);
  x = tanh(conv(net, x, 'c1', scaled(6, width), { kernel: 5, padding, bias: true, init }), 'c1');
  x = pool(net, x, 's2', 'Average', HALVING);
  x = tanh(conv(net, x, 'c3', scaled(16, width), { kernel: 5, padding: 0, bias: true, init }), 'c3');
  x = flatten(net, pool(net, x, 's4', 'Average', HALVING), 'flatten');
  x = tanh(linear(net, x, 'c5', scaled(120, width), { init }), 'c5');
  x = tanh(linear(net, x, 'f6', scaled(84, width), { init }), 'f6');
  net.output(linear(net, x, 'output', classes, { init }), 'logits');
}

/** Two stages of Conv 5x5, BatchNormalization, ReLU and pooling (32 and 64 channels), then three layers of 256, 128 and classes. */
function lenet5Enhanced(net: Net, settings: ZooSettings): void {
  const { inputSize, channels, classes, width } = settings;
  let x = net.input([channels, inputSize, inputSize]);
  for (const [i, outputs] of [32, 64].entries()) {
    const number = String(i + 1);
    x = conv(net, x, `conv${number}`, scaled(outputs, width), { kernel: 5 });
    x = activation(net, batchNorm(net, x, `bn${number}`), `relu${number}`, 'relu');
    x = pool(net, x, `pool${number}`, 'Max', HALVING);
  }
  x = flatten(net, x, 'flatten');
  for (const [i, outputs] of [256, 128].entries()) {
    const number = String(i + 1);
    x = linear(net, x, `fc${number}`, scaled(outputs, width), { init: kaimingNormal('in') });
    x = activation(net, x, `fc${number}.relu`, 'relu');
    x = dropout(net, x, `fc${number}.dropout`, settings.dropout);
  }
  net.output(linear(net, x, 'fc3', classes), 'logits');
}

const DEFAULTS = { classes: 10, width: 1, inputSize: 28, channels: 1 } as const;

export const LENETS: readonly Architecture[] = [
  {
    name: 'lenet5',
    summary: 'LeNet-5 (1998): two convolutions, three linear layers, tanh',
    defaults: DEFAULTS,
    check: sizeAtLeast(16),
    build: lenet5,
  },
  {
    name: 'lenet5-enhanced',
    summary: 'LeNet-5 with BatchNormalization, ReLU, max pooling and Dropout',
    defaults: { ...DEFAULTS, dropout: 0.5 },
    check: sizeAtLeast(4),
    build: lenet5Enhanced,
  },
];
