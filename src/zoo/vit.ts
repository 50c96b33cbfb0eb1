/** Vision transformers (Dosovitskiy et al. 2020, An Image is Worth 16x16 Words; sizes Ti and S from Touvron et al. 2020). */
import { intAttribute } from '../onnx/attributes.js';
import type { Value } from '../onnx/graph.js';
import type { Architecture } from './architecture.js';
import { concat, conv, dropout, layerNorm, linear, reshape, transpose } from './layers.js';
import type { Net } from './net.js';
import { scaled } from './options.js';
import { firstToken, positionEmbedding, preNormBlock, TRANSFORMER_INIT } from './transformer.js';

/** Channels of one head, in all sizes. */
const HEAD_WIDTH = 64;
const EPSILON = 1e-6;

/** The learned class token in front of the tokens of every sample. */
function withClassToken(net: Net, patches: Value): Value {
  const [batch = 1, , width = 0] = net.dims(patches);
  const token = net.parameter('cls_token.weight', [1, 1, width], TRANSFORMER_INIT);
  const count = net.op('cls_token.batch', 'Shape', [patches], [1], [intAttribute('start', 0), intAttribute('end', 1)]);
  const shape = concat(net, [count, net.integers('cls_token.dims', [1, width])], 'cls_token.shape', 0);
  const expanded = net.op('cls_token', 'Expand', [token, shape], [batch, 1, width]);
  return concat(net, [expanded, patches], 'tokens');
}

function vit(size: string, heads: number, rate: number): Architecture {
  return {
    name: `vit-${size.toLowerCase()}`,
    summary: `ViT-${size}: ${String(heads)} heads of ${String(HEAD_WIDTH)}, 12 layers, class token`,
    defaults: { classes: 1000, width: 1, inputSize: 224, channels: 3, patchSize: 16, depth: 12, dropout: rate },
    check: ({ inputSize, patchSize }) =>
      inputSize % patchSize === 0
        ? undefined
        : {
            option: 'inputSize',
            reason: `${String(inputSize)} is not a multiple of the patch size ${String(patchSize)}`,
            remedy: `Give ${String(Math.max(1, Math.round(inputSize / patchSize)) * patchSize)}, or another patch size.`,
          },
    build(net, { inputSize, channels, classes, width, patchSize, depth, dropout: rate }) {
      const count = scaled(heads, width);
      const side = inputSize / patchSize;
      const embedded = count * HEAD_WIDTH;
      const image = net.input([channels, inputSize, inputSize]);
      const patch = { kernel: patchSize, stride: patchSize, padding: 0, bias: true, init: TRANSFORMER_INIT };
      const grid = conv(net, image, 'patch_embed', embedded, patch);
      const rows = reshape(net, grid, 'patch_embed.flatten', [embedded, side * side]);
      let x = withClassToken(net, transpose(net, rows, 'patch_embed.transpose', [0, 2, 1]));
      x = dropout(net, positionEmbedding(net, x, 'pos_embed'), 'dropout', rate);
      for (let i = 0; i < depth; i++)
        x = preNormBlock(net, x, `blocks.${String(i)}`, { heads: count, dropout: rate, epsilon: EPSILON });
      // Normalization works per token, so only the class token needs it.
      x = layerNorm(net, firstToken(net, x, 'cls'), 'norm', EPSILON);
      net.output(linear(net, x, 'head', classes, { init: TRANSFORMER_INIT }), 'logits');
    },
  };
}

/** The small sizes come from DeiT, which has no Dropout; ViT-B has 0.1 (table 3, training on ImageNet). */
export const VITS: readonly Architecture[] = [vit('Ti', 3, 0), vit('S', 6, 0), vit('B', 12, 0.1)];
