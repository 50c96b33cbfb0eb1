/** MobileNetV2 (Sandler et al. 2018) and MobileNetV3 (Howard et al. 2019). */
import type { Architecture } from './architecture.js';
import { kaimingNormal } from './init.js';
import { invertedResidual } from './inverted-residual.js';
import { activation, convNorm, dropout, linear, pooledFeatures, type Activation } from './layers.js';
import { divisible, sizeAtLeast } from './options.js';

const DEFAULTS = { classes: 1000, width: 1, inputSize: 224, channels: 3, dropout: 0.2 } as const;

/** MobileNetV2, table 2: expansion factor, output channels, blocks, stride of the first block. */
const V2_STAGES = [
  [1, 16, 1, 1],
  [6, 24, 2, 2],
  [6, 32, 3, 2],
  [6, 64, 4, 2],
  [6, 96, 3, 1],
  [6, 160, 3, 2],
  [6, 320, 1, 1],
] as const;

const MOBILENET_V2: Architecture = {
  name: 'mobilenet-v2',
  summary: 'MobileNetV2: inverted residuals with linear bottlenecks',
  defaults: DEFAULTS,
  check: sizeAtLeast(32),
  build(net, settings) {
    const { inputSize, channels, classes, width } = settings;
    let x = net.input([channels, inputSize, inputSize]);
    x = convNorm(net, x, 'stem', divisible(32 * width), { kernel: 3, stride: 2, activation: 'relu6' });
    for (const [i, [expansion, count, blocks, stride]] of V2_STAGES.entries()) {
      for (let b = 0; b < blocks; b++) {
        x = invertedResidual(net, x, `stage${String(i + 1)}.${String(b)}`, {
          kernel: 3,
          expanded: expansion * (net.dims(x)[1] ?? 0),
          outputs: divisible(count * width),
          stride: b === 0 ? stride : 1,
          activation: 'relu6',
        });
      }
    }
    // The paper does not narrow the last convolution.
    x = convNorm(net, x, 'head', divisible(1280 * Math.max(1, width)), { kernel: 1, activation: 'relu6' });
    x = dropout(net, pooledFeatures(net, x), 'dropout', settings.dropout);
    net.output(linear(net, x, 'classifier', classes), 'logits');
  },
};

type V3Row = readonly [
  kernel: number,
  expanded: number,
  outputs: number,
  squeezeExcite: boolean,
  activation: Activation,
  stride: number,
];

/** MobileNetV3, table 1. */
const V3_LARGE: readonly V3Row[] = [
  [3, 16, 16, false, 'relu', 1],
  [3, 64, 24, false, 'relu', 2],
  [3, 72, 24, false, 'relu', 1],
  [5, 72, 40, true, 'relu', 2],
  [5, 120, 40, true, 'relu', 1],
  [5, 120, 40, true, 'relu', 1],
  [3, 240, 80, false, 'hard-swish', 2],
  [3, 200, 80, false, 'hard-swish', 1],
  [3, 184, 80, false, 'hard-swish', 1],
  [3, 184, 80, false, 'hard-swish', 1],
  [3, 480, 112, true, 'hard-swish', 1],
  [3, 672, 112, true, 'hard-swish', 1],
  [5, 672, 160, true, 'hard-swish', 2],
  [5, 960, 160, true, 'hard-swish', 1],
  [5, 960, 160, true, 'hard-swish', 1],
];

/** MobileNetV3, table 2. */
const V3_SMALL: readonly V3Row[] = [
  [3, 16, 16, true, 'relu', 2],
  [3, 72, 24, false, 'relu', 2],
  [3, 88, 24, false, 'relu', 1],
  [5, 96, 40, true, 'hard-swish', 2],
  [5, 240, 40, true, 'hard-swish', 1],
  [5, 240, 40, true, 'hard-swish', 1],
  [5, 120, 48, true, 'hard-swish', 1],
  [5, 144, 48, true, 'hard-swish', 1],
  [5, 288, 96, true, 'hard-swish', 2],
  [5, 576, 96, true, 'hard-swish', 1],
  [5, 576, 96, true, 'hard-swish', 1],
];

/** A momentum of 0.01 in PyTorch's sense. */
const V3_NORM = { epsilon: 1e-3, momentum: 0.99 } as const;

/** @param hidden width of the linear layer in front of the class head */
function mobileNetV3(size: 'small' | 'large', rows: readonly V3Row[], hidden: number): Architecture {
  return {
    name: `mobilenet-v3-${size}`,
    summary: `MobileNetV3-${size}: squeeze-and-excitation, hard swish`,
    defaults: DEFAULTS,
    check: sizeAtLeast(32),
    build(net, settings) {
      const { inputSize, channels, classes, width } = settings;
      const act = { activation: 'hard-swish', norm: V3_NORM } as const;
      let x = net.input([channels, inputSize, inputSize]);
      x = convNorm(net, x, 'stem', divisible(16 * width), { kernel: 3, stride: 2, ...act });
      for (const [i, [kernel, expanded, outputs, squeezed, nonlinearity, stride]] of rows.entries()) {
        const inner = divisible(expanded * width);
        x = invertedResidual(net, x, `blocks.${String(i)}`, {
          kernel,
          expanded: inner,
          outputs: divisible(outputs * width),
          stride,
          activation: nonlinearity,
          norm: V3_NORM,
          ...(squeezed && {
            squeezeExcite: { squeezed: divisible(inner / 4), activation: 'relu', gate: 'hard-sigmoid' },
          }),
        });
      }
      x = convNorm(net, x, 'head', 6 * (net.dims(x)[1] ?? 0), { kernel: 1, ...act });
      x = linear(net, pooledFeatures(net, x), 'hidden', divisible(hidden * width), { init: kaimingNormal('in') });
      x = dropout(net, activation(net, x, 'hidden.act', 'hard-swish'), 'dropout', settings.dropout);
      net.output(linear(net, x, 'classifier', classes), 'logits');
    },
  };
}

export const MOBILENETS: readonly Architecture[] = [
  MOBILENET_V2,
  mobileNetV3('small', V3_SMALL, 1024),
  mobileNetV3('large', V3_LARGE, 1280),
];
