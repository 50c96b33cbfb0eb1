/** Variational autoencoder (Kingma and Welling 2013) with one hidden layer on either side. */
import type { Architecture } from './architecture.js';
import { kaimingNormal, xavierUniform } from './init.js';
import { activation, flatten, linear, reshape } from './layers.js';
import { scaled } from './options.js';

const HIDDEN = 400;
const DEFAULTS = { width: 1, inputSize: 28, channels: 1, latent: 20 } as const;
const HIDDEN_INIT = { init: kaimingNormal('in') } as const;
const OUTPUT_INIT = { init: xavierUniform } as const;

/** Image to the mean and the logarithm of the variance of its latent vector. */
const ENCODER: Architecture = {
  name: 'vae-encoder',
  summary: 'VAE encoder: image to mean and log variance of the latent vector',
  defaults: DEFAULTS,
  build(net, { inputSize, channels, width, latent }) {
    const pixels = flatten(net, net.input([channels, inputSize, inputSize]), 'flatten');
    const hidden = linear(net, pixels, 'fc1', scaled(HIDDEN, width), HIDDEN_INIT);
    const x = activation(net, hidden, 'relu', 'relu');
    net.output(linear(net, x, 'fc_mean', latent, OUTPUT_INIT), 'mean');
    net.output(linear(net, x, 'fc_log_variance', latent, OUTPUT_INIT), 'log_variance');
  },
};

/** Latent vector to image in 0..1. */
const DECODER: Architecture = {
  name: 'vae-decoder',
  summary: 'VAE decoder: latent vector to image in 0..1',
  defaults: DEFAULTS,
  build(net, { inputSize, channels, width, latent }) {
    const hidden = linear(net, net.input([latent]), 'fc1', scaled(HIDDEN, width), HIDDEN_INIT);
    const x = activation(net, hidden, 'relu', 'relu');
    const pixels = linear(net, x, 'fc2', channels * inputSize * inputSize, OUTPUT_INIT);
    const image = reshape(net, activation(net, pixels, 'sigmoid', 'sigmoid'), 'shape', [
      channels,
      inputSize,
      inputSize,
    ]);
    net.output(image, 'image');
  },
};

export const VAES: readonly Architecture[] = [ENCODER, DECODER];
