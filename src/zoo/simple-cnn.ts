/** A plain network of six convolutions and two linear layers, without shortcuts: the smallest thing worth compressing. */
import type { Architecture } from './architecture.js';
import { kaimingNormal } from './init.js';
import { activation, convNorm, dropout, flatten, linear, pool } from './layers.js';
import type { Net } from './net.js';
import { scaled, sizeAtLeast, type ZooSettings } from './options.js';

const STAGES = [32, 64, 128] as const;
const HIDDEN = 128;

/** Three stages of two 3x3 convolutions and a pooling, then two linear layers with Dropout between them. */
function simpleCnn(net: Net, settings: ZooSettings): void {
  const { inputSize, channels, classes, width } = settings;
  let x = net.input([channels, inputSize, inputSize]);
  for (const [i, outputs] of STAGES.entries()) {
    const stage = `stage${String(i + 1)}`;
    for (const layer of ['0', '1'])
      x = convNorm(net, x, `${stage}.${layer}`, scaled(outputs, width), { kernel: 3, activation: 'relu' });
    x = pool(net, x, `${stage}.pool`, 'Max', { kernel: 2, stride: 2 });
  }
  x = flatten(net, x, 'flatten');
  x = linear(net, x, 'fc1', scaled(HIDDEN, width), { init: kaimingNormal('in') });
  x = dropout(net, activation(net, x, 'fc1.relu', 'relu'), 'dropout', settings.dropout);
  net.output(linear(net, x, 'fc2', classes), 'logits');
}

export const SIMPLE_CNN: Architecture = {
  name: 'simple-cnn',
  summary: 'SimpleCNN 6x2: six 3x3 convolutions, two linear layers',
  defaults: { classes: 10, width: 1, inputSize: 32, channels: 3, dropout: 0.5 },
  check: sizeAtLeast(8),
  build: simpleCnn,
};
