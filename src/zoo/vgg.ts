/** VGG (Simonyan and Zisserman 2014, Very Deep Convolutional Networks), with and without BatchNormalization. */
import type { Architecture } from './architecture.js';
import { kaimingNormal, normal } from './init.js';
import { activation, batchNorm, conv, dropout, flatten, linear, pool } from './layers.js';
import { scaled, sizeAtLeast } from './options.js';

const STAGES = [64, 128, 256, 512, 512] as const;
const HIDDEN = 4096;

/** Table 1, columns A, B, D and E: 3x3 convolutions per stage, each stage ended by a pooling. */
const CONVOLUTIONS: Readonly<Record<number, readonly number[]>> = {
  11: [1, 1, 2, 2, 2],
  13: [2, 2, 2, 2, 2],
  16: [2, 2, 3, 3, 3],
  19: [2, 2, 4, 4, 4],
};

function vgg(layers: number, normalized: boolean): Architecture {
  const counts = CONVOLUTIONS[layers] ?? [];
  return {
    name: `vgg${String(layers)}${normalized ? '-bn' : ''}`,
    summary: `VGG of ${String(layers)} layers${normalized ? ' with BatchNormalization' : ''}`,
    defaults: { classes: 1000, width: 1, inputSize: 224, channels: 3, dropout: 0.5 },
    check: sizeAtLeast(32),
    build(net, settings) {
      let x = net.input([settings.channels, settings.inputSize, settings.inputSize]);
      for (const [i, outputs] of STAGES.entries()) {
        const stage = `stage${String(i + 1)}`;
        for (let c = 1; c <= (counts[i] ?? 0); c++) {
          const name = `${stage}.conv${String(c)}`;
          // Torchvision keeps the biases in front of the normalizations.
          x = conv(net, x, name, scaled(outputs, settings.width), { kernel: 3, bias: true });
          if (normalized) x = batchNorm(net, x, `${stage}.bn${String(c)}`);
          x = activation(net, x, `${name}.relu`, 'relu');
        }
        x = pool(net, x, `${stage}.pool`, 'Max', { kernel: 2, stride: 2 });
      }
      x = flatten(net, x, 'flatten');
      for (const name of ['fc1', 'fc2']) {
        x = linear(net, x, name, scaled(HIDDEN, settings.width), { init: kaimingNormal('in') });
        x = dropout(net, activation(net, x, `${name}.relu`, 'relu'), `${name}.dropout`, settings.dropout);
      }
      net.output(linear(net, x, 'fc3', settings.classes, { init: normal(0.01) }), 'logits');
    },
  };
}

export const VGGS: readonly Architecture[] = [11, 13, 16, 19].flatMap((layers) => [
  vgg(layers, false),
  vgg(layers, true),
]);
