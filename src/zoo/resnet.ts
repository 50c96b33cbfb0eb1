/** Residual networks (He et al. 2015, Deep Residual Learning for Image Recognition): those for CIFAR and those for ImageNet. */
import { stringAttribute } from '../onnx/attributes.js';
import type { Value } from '../onnx/graph.js';
import type { Architecture } from './architecture.js';
import { activation, add, batchNorm, conv, linear, pool, pooledFeatures, slice } from './layers.js';
import type { Net } from './net.js';
import { scaled, sizeAtLeast, type ZooSettings } from './options.js';

/** A residual block: the shortcut's output, or the input where the shape stays, plus what the convolutions make of it. */
interface Block {
  /** Channels inside; a bottleneck puts out `expansion` times as many. */
  readonly channels: number;
  readonly stride: number;
  readonly shortcut: ZooSettings['shortcut'];
}

type BlockBuilder = (net: Net, x: Value, name: string, block: Block) => Value;

/** Two 3x3 convolutions. */
const basicBlock: BlockBuilder = (net, x, name, { channels, stride, shortcut }) => {
  let y = conv(net, x, `${name}.conv1`, channels, { kernel: 3, stride });
  y = activation(net, batchNorm(net, y, `${name}.bn1`), `${name}.relu1`, 'relu');
  y = conv(net, y, `${name}.conv2`, channels, { kernel: 3 });
  y = batchNorm(net, y, `${name}.bn2`);
  return finish(net, x, y, name, stride, shortcut);
};

const EXPANSION = 4;

/** 1x1 to fewer channels, 3x3 (which has the stride, as in torchvision), 1x1 to four times as many. */
const bottleneck: BlockBuilder = (net, x, name, { channels, stride, shortcut }) => {
  let y = conv(net, x, `${name}.conv1`, channels, { kernel: 1 });
  y = activation(net, batchNorm(net, y, `${name}.bn1`), `${name}.relu1`, 'relu');
  y = conv(net, y, `${name}.conv2`, channels, { kernel: 3, stride });
  y = activation(net, batchNorm(net, y, `${name}.bn2`), `${name}.relu2`, 'relu');
  y = conv(net, y, `${name}.conv3`, EXPANSION * channels, { kernel: 1 });
  y = batchNorm(net, y, `${name}.bn3`);
  return finish(net, x, y, name, stride, shortcut);
};

function finish(net: Net, x: Value, y: Value, name: string, stride: number, kind: ZooSettings['shortcut']): Value {
  const outputs = net.dims(y)[1] ?? 0;
  const inputs = net.dims(x)[1] ?? 0;
  const unchanged = stride === 1 && inputs === outputs;
  const pass = unchanged
    ? x
    : kind === 'pad'
      ? padShortcut(net, x, `${name}.shortcut`, outputs, stride)
      : convShortcut(net, x, `${name}.downsample`, outputs, stride);
  const sum = activation(net, add(net, y, pass, `${name}.add`), `${name}.relu`, 'relu');
  // What passes unfiltered has been rectified: less than half of the rest is lost.
  return pass.producer?.is('BatchNormalization') ? sum : net.setEnergy(sum, net.energy(pass) + 0.75 * net.energy(y));
}

/** Option A: every second pixel, zero channels around, no parameters. */
function padShortcut(net: Net, x: Value, name: string, outputs: number, stride: number): Value {
  const taken = stride === 1 ? x : slice(net, x, `${name}.slice`, [2, 3], { start: 0, step: stride });
  const [batch = 1, inputs = 0, height = 0, width = 0] = net.dims(taken);
  const before = Math.floor((outputs - inputs) / 2);
  const pads = net.integers(`${name}.pads`, [0, before, 0, 0, 0, outputs - inputs - before, 0, 0]);
  const padded = net.op(
    name,
    'Pad',
    [taken, pads],
    [batch, outputs, height, width],
    [stringAttribute('mode', 'constant')],
  );
  return net.setEnergy(padded, (net.energy(taken) * inputs) / outputs);
}

/** Option B: a 1x1 convolution and its normalization. */
function convShortcut(net: Net, x: Value, name: string, outputs: number, stride: number): Value {
  const y = conv(net, x, `${name}.0`, outputs, { kernel: 1, stride });
  return batchNorm(net, y, `${name}.1`);
}

function stages(
  net: Net,
  x: Value,
  block: BlockBuilder,
  rows: readonly { readonly blocks: number; readonly channels: number }[],
  shortcut: ZooSettings['shortcut'],
): Value {
  let y = x;
  for (const [i, { blocks, channels }] of rows.entries()) {
    for (let b = 0; b < blocks; b++) {
      const stride = i > 0 && b === 0 ? 2 : 1;
      y = block(net, y, `layer${String(i + 1)}.${String(b)}`, { channels, stride, shortcut });
    }
  }
  return y;
}

/** Section 4.2: 6n + 2 layers; a 3x3 convolution, three stages of n blocks with 16, 32 and 64 channels, the class head. */
function cifarResNet(layers: number): Architecture {
  const blocks = (layers - 2) / 6;
  return {
    name: `resnet${String(layers)}`,
    summary: `ResNet for CIFAR: 3 stages of ${String(blocks)} ${blocks === 1 ? 'block' : 'blocks'}`,
    defaults: { classes: 10, width: 1, inputSize: 32, channels: 3, shortcut: 'pad' },
    check: sizeAtLeast(4),
    build(net, { inputSize, channels, classes, width, shortcut }) {
      const [first, second, third] = [16, 32, 64].map((count) => scaled(count, width)) as [number, number, number];
      let x = net.input([channels, inputSize, inputSize]);
      x = conv(net, x, 'conv1', first, { kernel: 3 });
      x = activation(net, batchNorm(net, x, 'bn1'), 'relu', 'relu');
      const rows = [first, second, third].map((count) => ({ blocks, channels: count }));
      x = stages(net, x, basicBlock, rows, shortcut);
      net.output(linear(net, pooledFeatures(net, x), 'fc', classes), 'logits');
    },
  };
}

/** Table 1: 7x7 / 2, pooling / 2, four stages with 64 to 512 channels. */
function imageNetResNet(layers: number, counts: readonly number[], block: BlockBuilder): Architecture {
  return {
    name: `resnet${String(layers)}`,
    summary: `ResNet for ImageNet: stages of ${counts.join(', ')} ${block === bottleneck ? 'bottlenecks' : 'blocks'}`,
    defaults: { classes: 1000, width: 1, inputSize: 224, channels: 3, shortcut: 'conv' },
    check: sizeAtLeast(32),
    build(net, { inputSize, channels, classes, width, shortcut }) {
      let x = net.input([channels, inputSize, inputSize]);
      x = conv(net, x, 'conv1', scaled(64, width), { kernel: 7, stride: 2 });
      x = activation(net, batchNorm(net, x, 'bn1'), 'relu', 'relu');
      x = pool(net, x, 'maxpool', 'Max', { kernel: 3, stride: 2, padding: 1 });
      const rows = counts.map((blocks, i) => ({ blocks, channels: scaled(64 * 2 ** i, width) }));
      x = stages(net, x, block, rows, shortcut);
      net.output(linear(net, pooledFeatures(net, x), 'fc', classes), 'logits');
    },
  };
}

export const RESNETS: readonly Architecture[] = [
  ...[8, 14, 20, 32, 44, 56, 110].map(cifarResNet),
  imageNetResNet(18, [2, 2, 2, 2], basicBlock),
  imageNetResNet(34, [3, 4, 6, 3], basicBlock),
  imageNetResNet(50, [3, 4, 6, 3], bottleneck),
  imageNetResNet(101, [3, 4, 23, 3], bottleneck),
  imageNetResNet(152, [3, 8, 36, 3], bottleneck),
];
