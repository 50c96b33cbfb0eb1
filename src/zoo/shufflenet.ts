/** ShuffleNetV2 (Ma et al. 2018, Practical Guidelines for Efficient CNN Architecture Design). */
import { intAttribute } from '../onnx/attributes.js';
import type { Value } from '../onnx/graph.js';
import type { Architecture } from './architecture.js';
import { concat, convNorm, linear, pool, pooledFeatures, reshape, transpose } from './layers.js';
import type { Net } from './net.js';
import { scaled, sizeAtLeast } from './options.js';

/** Table 5, 1x: units and channels of the stages. */
const STAGES = [
  [4, 116],
  [8, 232],
  [4, 464],
] as const;
const STEM = 24;
const HEAD = 1024;

/** 1x1, depthwise 3x3, 1x1. */
function branch(net: Net, x: Value, name: string, outputs: number, stride: number): Value {
  let y = convNorm(net, x, `${name}.0`, outputs, { kernel: 1, activation: 'relu' });
  y = convNorm(net, y, `${name}.1`, outputs, { kernel: 3, stride, groups: outputs });
  return convNorm(net, y, `${name}.2`, outputs, { kernel: 1, activation: 'relu' });
}

/** Half of the channels passes, the other half is filtered. */
function unit(net: Net, x: Value, name: string): Value {
  const [batch = 1, channels = 0, height = 0, width = 0] = net.dims(x);
  const half = channels / 2;
  const halves = [half, half].map((count) => [batch, count, height, width]);
  const sizes = net.integers(`${name}.split.sizes`, [half, half]);
  const [left, right] = net.opWithOutputs(`${name}.split`, 'Split', [x, sizes], halves, [intAttribute('axis', 1)]);
  return shuffle(net, concat(net, [left!, branch(net, right!, `${name}.branch2`, half, 1)], `${name}.concat`), name);
}

/** All channels are filtered by both branches, at half the resolution. */
function downUnit(net: Net, x: Value, name: string, outputs: number): Value {
  const inputs = net.dims(x)[1] ?? 0;
  const half = outputs / 2;
  let left = convNorm(net, x, `${name}.branch1.0`, inputs, { kernel: 3, stride: 2, groups: inputs });
  left = convNorm(net, left, `${name}.branch1.1`, half, { kernel: 1, activation: 'relu' });
  return shuffle(net, concat(net, [left, branch(net, x, `${name}.branch2`, half, 2)], `${name}.concat`), name);
}

/** Channels of the two halves alternate. */
function shuffle(net: Net, x: Value, name: string): Value {
  const [, channels = 0, height = 0, width = 0] = net.dims(x);
  const grouped = reshape(net, x, `${name}.shuffle.group`, [2, channels / 2, height, width]);
  const swapped = transpose(net, grouped, `${name}.shuffle.transpose`, [0, 2, 1, 3, 4]);
  return reshape(net, swapped, `${name}.shuffle`, [channels, height, width]);
}

export const SHUFFLENET_V2: Architecture = {
  name: 'shufflenet-v2',
  summary: 'ShuffleNetV2 x1.0: channel split and shuffle',
  defaults: { classes: 1000, width: 1, inputSize: 224, channels: 3 },
  check: sizeAtLeast(32),
  build(net, { inputSize, channels, classes, width }) {
    let x = net.input([channels, inputSize, inputSize]);
    x = convNorm(net, x, 'conv1', scaled(STEM, width), { kernel: 3, stride: 2, activation: 'relu' });
    x = pool(net, x, 'maxpool', 'Max', { kernel: 3, stride: 2, padding: 1 });
    for (const [i, [units, count]] of STAGES.entries()) {
      const stage = `stage${String(i + 2)}`;
      x = downUnit(net, x, `${stage}.0`, 2 * scaled(count / 2, width));
      for (let u = 1; u < units; u++) x = unit(net, x, `${stage}.${String(u)}`);
    }
    x = convNorm(net, x, 'conv5', scaled(HEAD, Math.max(1, width)), { kernel: 1, activation: 'relu' });
    net.output(linear(net, pooledFeatures(net, x), 'fc', classes), 'logits');
  },
};
