/** DCGAN (Radford et al. 2015, Unsupervised Representation Learning with Deep Convolutional GANs): generator and discriminator. */
import type { Architecture } from './architecture.js';
import { normal } from './init.js';
import { activation, batchNorm, conv, convTranspose, flatten, reshape } from './layers.js';
import { scaled, type OptionProblem, type ZooSettings } from './options.js';

const FEATURES = 64;
const init = normal(0.02);
const NORM = { scale: normal(0.02, 1) } as const;
/** Doubles or halves the size. */
const STRIDED = { kernel: 4, stride: 2, padding: 1, init } as const;

/** Levels between 4 x 4 and the image, where the channels double from 64 on: 4 for 64 x 64 pixels. */
const levelsOf = (inputSize: number): number => Math.log2(inputSize) - 2;

function check({ inputSize }: ZooSettings): OptionProblem | undefined {
  if (inputSize >= 8 && Number.isInteger(Math.log2(inputSize))) return undefined;
  return {
    option: 'inputSize',
    reason: `${String(inputSize)} is not a power of two from 8 on`,
    remedy: `Give ${String(Math.max(8, 2 ** Math.round(Math.log2(inputSize))))}.`,
  };
}

/** Latent vector [N, latent] to image [N, channels, size, size] in -1..1. */
const GENERATOR: Architecture = {
  name: 'dcgan-generator',
  summary: 'DCGAN generator: latent vector to image in -1..1',
  defaults: { width: 1, inputSize: 64, channels: 3, latent: 100 },
  check,
  build(net, { inputSize, channels, width, latent }) {
    const levels = levelsOf(inputSize);
    let x = reshape(net, net.input([latent]), 'latent', [latent, 1, 1]);
    for (let level = levels - 1; level >= 0; level--) {
      const name = `up${String(levels - level)}`;
      const first = level === levels - 1;
      const outputs = scaled(FEATURES * 2 ** level, width);
      x = convTranspose(net, x, `${name}.conv`, outputs, first ? { kernel: 4, stride: 1, init } : STRIDED);
      x = activation(net, batchNorm(net, x, `${name}.bn`, NORM), `${name}.relu`, 'relu');
    }
    x = convTranspose(net, x, 'to_image', channels, STRIDED);
    net.output(activation(net, x, 'tanh', 'tanh'), 'image');
  },
};

/** Image to one logit per sample, positive for real images. */
const DISCRIMINATOR: Architecture = {
  name: 'dcgan-discriminator',
  summary: 'DCGAN discriminator: image to one logit, real or made',
  defaults: { width: 1, inputSize: 64, channels: 3 },
  check,
  build(net, { inputSize, channels, width }) {
    let x = net.input([channels, inputSize, inputSize]);
    for (let level = 0; level < levelsOf(inputSize); level++) {
      const name = `down${String(level + 1)}`;
      x = conv(net, x, `${name}.conv`, scaled(FEATURES * 2 ** level, width), STRIDED);
      if (level > 0) x = batchNorm(net, x, `${name}.bn`, NORM);
      x = activation(net, x, `${name}.lrelu`, 'leaky-relu');
    }
    x = conv(net, x, 'head', 1, { kernel: 4, padding: 0, init });
    net.output(flatten(net, x, 'flatten'), 'logits');
  },
};

export const DCGANS: readonly Architecture[] = [GENERATOR, DISCRIMINATOR];
