/** ConvNeXt-T (Liu et al. 2022, A ConvNet for the 2020s). */
import type { Value } from '../onnx/graph.js';
import type { Architecture } from './architecture.js';
import { truncatedNormal } from './init.js';
import { activation, add, conv, layerNorm, layerScale, linear, pooledFeatures, transpose } from './layers.js';
import type { Net } from './net.js';
import { scaled, sizeAtLeast } from './options.js';

const STAGES = [
  { blocks: 3, channels: 96 },
  { blocks: 3, channels: 192 },
  { blocks: 9, channels: 384 },
  { blocks: 3, channels: 768 },
] as const;
const LAYER_SCALE = 1e-6;
const init = truncatedNormal(0.02);

const toChannelsLast = (net: Net, x: Value, name: string): Value => transpose(net, x, name, [0, 2, 3, 1]);
const toChannelsFirst = (net: Net, x: Value, name: string): Value => transpose(net, x, name, [0, 3, 1, 2]);

/** Layer normalization over the channels of every pixel. */
function channelNorm(net: Net, x: Value, name: string): Value {
  return toChannelsFirst(net, layerNorm(net, toChannelsLast(net, x, `${name}.last`), name), `${name}.first`);
}

/** Depthwise 7x7, normalization, two linear layers per pixel with GELU between them, a learned scale. */
function block(net: Net, x: Value, name: string): Value {
  const channels = net.dims(x)[1] ?? 0;
  let y = conv(net, x, `${name}.dwconv`, channels, { kernel: 7, groups: channels, bias: true, init });
  y = layerNorm(net, toChannelsLast(net, y, `${name}.last`), `${name}.norm`);
  y = activation(net, linear(net, y, `${name}.pwconv1`, 4 * channels, { init }), `${name}.gelu`, 'gelu');
  y = linear(net, y, `${name}.pwconv2`, channels, { init });
  y = layerScale(net, y, `${name}.scale`, LAYER_SCALE);
  return add(net, x, toChannelsFirst(net, y, `${name}.first`), `${name}.add`);
}

export const CONVNEXT_T: Architecture = {
  name: 'convnext-t',
  summary: 'ConvNeXt-T: depthwise 7x7 and per-pixel MLPs',
  defaults: { classes: 1000, width: 1, inputSize: 224, channels: 3 },
  check: sizeAtLeast(32, 32),
  build(net, { inputSize, channels, classes, width }) {
    let x = net.input([channels, inputSize, inputSize]);
    for (const [i, stage] of STAGES.entries()) {
      const outputs = scaled(stage.channels, width);
      const name = `downsample.${String(i)}`;
      const patch = i === 0 ? 4 : 2;
      if (i > 0) x = channelNorm(net, x, `${name}.norm`);
      x = conv(net, x, `${name}.conv`, outputs, { kernel: patch, stride: patch, padding: 0, bias: true, init });
      if (i === 0) x = channelNorm(net, x, `${name}.norm`);
      for (let b = 0; b < stage.blocks; b++) x = block(net, x, `stages.${String(i)}.${String(b)}`);
    }
    net.output(linear(net, layerNorm(net, pooledFeatures(net, x), 'norm'), 'head', classes, { init }), 'logits');
  },
};
