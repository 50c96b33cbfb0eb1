/** BERT encoders (Devlin et al. 2018; small sizes from Turc et al. 2019) with a class head. */
import { intAttribute } from '../onnx/attributes.js';
import { DataType } from '../onnx/dtypes.js';
import type { Value } from '../onnx/graph.js';
import type { Architecture } from './architecture.js';
import { activation, dropout, layerNorm, linear, reshape } from './layers.js';
import type { Net } from './net.js';
import { scaled } from './options.js';
import { embedding, firstToken, positionEmbedding, postNormBlock, TRANSFORMER_INIT } from './transformer.js';

const HEAD_WIDTH = 64;
const EPSILON = 1e-12;
/** Far below any score, and within the range of float16. */
const MASKED = -10_000;
const WORDPIECES = 30_522;
const LONGEST = 512;

/** 0 at tokens, -10000 at the padding (token number 0); [N, 1, 1, tokens]. */
function paddingMask(net: Net, ids: Value): Value {
  const dims = net.dims(ids);
  const padded = net.op('mask.padded', 'Equal', [ids, net.integers('mask.pad_token', [0], [])], dims);
  const asFloat = net.op('mask.cast', 'Cast', [padded], dims, [intAttribute('to', Number(DataType.FLOAT))]);
  const bias = net.op('mask', 'Mul', [asFloat, net.scalar(MASKED)], dims);
  return reshape(net, bias, 'mask.broadcast', [1, 1, dims[1] ?? 0]);
}

/** One sentence per sample: there are no token types. Token 0 is padding, as in BERT's vocabularies. */
function bert(size: string, layers: number, heads: number): Architecture {
  return {
    name: `bert-${size}`,
    summary: `BERT-${size} encoder: ${String(layers)} layers, ${String(heads)} heads, class head; token ids, 0 = padding`,
    defaults: { classes: 2, width: 1, inputSize: LONGEST, vocabulary: WORDPIECES, depth: layers, dropout: 0.1 },
    build(net, { inputSize, classes, width, vocabulary, depth, dropout: rate }) {
      const count = scaled(heads, width);
      const hidden = count * HEAD_WIDTH;
      const ids = net.input([inputSize], 'int64');
      const mask = paddingMask(net, ids);
      const { vectors } = embedding(net, ids, 'embeddings.word', { vocabulary, width: hidden });
      let x = layerNorm(net, positionEmbedding(net, vectors, 'embeddings.position'), 'embeddings.norm', EPSILON);
      x = dropout(net, x, 'embeddings.dropout', rate);
      for (let i = 0; i < depth; i++) {
        x = postNormBlock(net, x, `layers.${String(i)}`, {
          heads: count,
          dropout: rate,
          epsilon: EPSILON,
          attention: { biases: [mask], dropout: rate },
        });
      }
      x = linear(net, firstToken(net, x, 'cls'), 'pooler', hidden, { init: TRANSFORMER_INIT });
      x = dropout(net, activation(net, x, 'pooler.tanh', 'tanh'), 'dropout', rate);
      net.output(linear(net, x, 'classifier', classes, { init: TRANSFORMER_INIT }), 'logits');
    },
  };
}

export const BERTS: readonly Architecture[] = [bert('tiny', 2, 2), bert('base', 12, 12)];
