/** EfficientNet-B0 (Tan and Le 2019). */
import type { Architecture } from './architecture.js';
import { invertedResidual } from './inverted-residual.js';
import { convNorm, dropout, linear, pooledFeatures } from './layers.js';
import { divisible, sizeAtLeast } from './options.js';

/** Table 1: expansion factor, output channels, blocks, stride of the first block, kernel. */
const STAGES = [
  [1, 16, 1, 1, 3],
  [6, 24, 2, 2, 3],
  [6, 40, 2, 2, 5],
  [6, 80, 3, 2, 3],
  [6, 112, 3, 1, 5],
  [6, 192, 4, 2, 5],
  [6, 320, 1, 1, 3],
] as const;

/** As in the authors' code. */
const NORM = { epsilon: 1e-3, momentum: 0.99 } as const;

export const EFFICIENTNET_B0: Architecture = {
  name: 'efficientnet-b0',
  summary: 'EfficientNet-B0: inverted residuals, squeeze-and-excitation, SiLU',
  defaults: { classes: 1000, width: 1, inputSize: 224, channels: 3, dropout: 0.2 },
  check: sizeAtLeast(32),
  build(net, settings) {
    const { inputSize, channels, classes, width } = settings;
    let x = net.input([channels, inputSize, inputSize]);
    x = convNorm(net, x, 'stem', divisible(32 * width), { kernel: 3, stride: 2, activation: 'silu', norm: NORM });
    for (const [i, [expansion, count, blocks, stride, kernel]] of STAGES.entries()) {
      for (let b = 0; b < blocks; b++) {
        const inputs = net.dims(x)[1] ?? 0;
        x = invertedResidual(net, x, `stage${String(i + 1)}.${String(b)}`, {
          kernel,
          expanded: expansion * inputs,
          outputs: divisible(count * width),
          stride: b === 0 ? stride : 1,
          activation: 'silu',
          norm: NORM,
          // A quarter of the block's input, not of the expanded channels.
          squeezeExcite: { squeezed: Math.max(1, Math.floor(inputs / 4)), activation: 'silu', gate: 'sigmoid' },
        });
      }
    }
    x = convNorm(net, x, 'head', divisible(1280 * width), { kernel: 1, activation: 'silu', norm: NORM });
    x = dropout(net, pooledFeatures(net, x), 'dropout', settings.dropout);
    net.output(linear(net, x, 'classifier', classes), 'logits');
  },
};
