/** DenseNet (Huang et al. 2017, Densely Connected Convolutional Networks). */
import type { Value } from '../onnx/graph.js';
import type { Architecture } from './architecture.js';
import { kaimingNormal } from './init.js';
import { activation, batchNorm, concat, conv, linear, pool, pooledFeatures } from './layers.js';
import type { Net } from './net.js';
import { scaled, sizeAtLeast } from './options.js';

/** DenseNet-BC: the 1x1 convolution in front of every 3x3 one has four times the growth, transitions halve the channels. */
const BOTTLENECK = 4;
const GROWTH = 32;
const STEM = 64;
const BLOCKS_121 = [6, 12, 24, 16] as const;

function normRelu(net: Net, x: Value, norm: string, relu: string): Value {
  return activation(net, batchNorm(net, x, norm), relu, 'relu');
}

/** Adds `growth` channels to what all layers before have made. */
function denseLayer(net: Net, x: Value, name: string, growth: number): Value {
  const init = kaimingNormal('in');
  let y = normRelu(net, x, `${name}.norm1`, `${name}.relu1`);
  y = conv(net, y, `${name}.conv1`, BOTTLENECK * growth, { kernel: 1, init });
  y = normRelu(net, y, `${name}.norm2`, `${name}.relu2`);
  y = conv(net, y, `${name}.conv2`, growth, { kernel: 3, init });
  return concat(net, [x, y], `${name}.concat`);
}

function transition(net: Net, x: Value, name: string): Value {
  const half = Math.floor((net.dims(x)[1] ?? 0) / 2);
  const y = normRelu(net, x, `${name}.norm`, `${name}.relu`);
  const narrowed = conv(net, y, `${name}.conv`, half, { kernel: 1, init: kaimingNormal('in') });
  return pool(net, narrowed, `${name}.pool`, 'Average', { kernel: 2, stride: 2 });
}

export const DENSENET_121: Architecture = {
  name: 'densenet121',
  summary: 'DenseNet-121: every layer reads all layers of its block before it',
  defaults: { classes: 1000, width: 1, inputSize: 224, channels: 3 },
  check: sizeAtLeast(32),
  build(net, { inputSize, channels, classes, width }) {
    const growth = scaled(GROWTH, width);
    let x = net.input([channels, inputSize, inputSize]);
    x = conv(net, x, 'features.conv0', scaled(STEM, width), { kernel: 7, stride: 2, init: kaimingNormal('in') });
    x = normRelu(net, x, 'features.norm0', 'features.relu0');
    x = pool(net, x, 'features.pool0', 'Max', { kernel: 3, stride: 2, padding: 1 });
    for (const [i, layers] of BLOCKS_121.entries()) {
      if (i > 0) x = transition(net, x, `features.transition${String(i)}`);
      for (let l = 1; l <= layers; l++)
        x = denseLayer(net, x, `features.denseblock${String(i + 1)}.denselayer${String(l)}`, growth);
    }
    x = normRelu(net, x, 'features.norm5', 'features.relu5');
    net.output(linear(net, pooledFeatures(net, x), 'classifier', classes), 'logits');
  },
};
