/** U-Net (Ronneberger et al. 2015) as it is built today: padded convolutions with BatchNormalization, so masks have the size of images. */
import type { Value } from '../onnx/graph.js';
import type { Architecture } from './architecture.js';
import { concat, conv, convNorm, convTranspose, pool } from './layers.js';
import type { Net } from './net.js';
import { scaled, sizeAtLeast } from './options.js';

const CHANNELS = [64, 128, 256, 512] as const;
const BOTTLENECK = 1024;

function doubleConv(net: Net, x: Value, name: string, channels: number): Value {
  const y = convNorm(net, x, `${name}.0`, channels, { kernel: 3, activation: 'relu' });
  return convNorm(net, y, `${name}.1`, channels, { kernel: 3, activation: 'relu' });
}

export const UNET: Architecture = {
  name: 'unet',
  summary: 'U-Net: segmentation, logits [N, classes, H, W]',
  defaults: { classes: 2, width: 1, inputSize: 256, channels: 3 },
  check: sizeAtLeast(16, 16),
  build(net, { inputSize, channels, classes, width }) {
    const counts = CHANNELS.map((count) => scaled(count, width));
    let x = net.input([channels, inputSize, inputSize]);
    const skips = counts.map((count, i) => {
      const level = `encoder${String(i + 1)}`;
      const skip = doubleConv(net, x, level, count);
      x = pool(net, skip, `${level}.pool`, 'Max', { kernel: 2, stride: 2 });
      return skip;
    });
    x = doubleConv(net, x, 'bottleneck', scaled(BOTTLENECK, width));
    for (let i = counts.length - 1; i >= 0; i--) {
      const count = counts[i]!;
      const level = `decoder${String(i + 1)}`;
      const up = convTranspose(net, x, `${level}.up`, count, { kernel: 2, stride: 2, bias: true });
      x = doubleConv(net, concat(net, [up, skips[i]!], `${level}.concat`), level, count);
    }
    net.output(conv(net, x, 'head', classes, { kernel: 1, bias: true }), 'logits');
  },
};
