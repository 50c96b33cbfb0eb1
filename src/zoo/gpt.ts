/** GPT-2 decoders (Radford et al. 2019, Language Models are Unsupervised Multitask Learners): logits of every next token. */
import { intAttribute, tensorAttribute } from '../onnx/attributes.js';
import { DataType } from '../onnx/dtypes.js';
import type { Value } from '../onnx/graph.js';
import { makeTensor } from '../onnx/tensor.js';
import type { Architecture } from './architecture.js';
import { normal } from './init.js';
import { dropout, layerNorm } from './layers.js';
import type { Net } from './net.js';
import { scaled } from './options.js';
import { embedding, positionEmbedding, preNormBlock } from './transformer.js';

const EPSILON = 1e-5;
/** Far below any score, and within the range of float16. */
const MASKED = -10_000;

/** -10000 above the diagonal, 0 elsewhere: no token sees those after it; [tokens, tokens], computed when the model is loaded. */
function causalMask(net: Net, tokens: number): Value {
  const square = [tokens, tokens];
  const fill = tensorAttribute('value', makeTensor('value', DataType.FLOAT, [1], Float32Array.of(MASKED)));
  const full = net.op('mask.full', 'ConstantOfShape', [net.integers('mask.shape', square)], square, [fill]);
  return net.op('mask', 'Trilu', [full, net.integers('mask.diagonal', [1], [])], square, [intAttribute('upper', 1)]);
}

/** The embedding table read the other way round: one product per token and word, no parameters of its own. */
function tiedHead(net: Net, x: Value, table: Value, vocabulary: number): Value {
  const [, tokens = 0, width = 0] = net.dims(x);
  const shape = net.integers('lm_head.rows.shape', [-1, width]);
  const rows = net.op('lm_head.rows', 'Reshape', [x, shape], [tokens, width]);
  const scores = net.op('lm_head', 'Gemm', [rows, table], [tokens, vocabulary], [intAttribute('transB', 1)]);
  const back = net.integers('lm_head.tokens.shape', [-1, tokens, vocabulary]);
  return net.op('lm_head.tokens', 'Reshape', [scores, back], [1, tokens, vocabulary]);
}

interface Size {
  readonly layers: number;
  readonly heads: number;
  readonly headWidth: number;
  readonly context: number;
  readonly vocabulary: number;
}

function gpt(name: string, size: Size): Architecture {
  const { layers, heads, headWidth, context, vocabulary: words } = size;
  return {
    name,
    summary: `GPT-2 decoder: ${String(layers)} layers, ${String(heads)} heads, ${String(context)} tokens, tied head`,
    defaults: { width: 1, inputSize: context, vocabulary: words, depth: layers, dropout: 0.1 },
    build(net, { inputSize, width, vocabulary, depth, dropout: rate }) {
      const count = scaled(heads, width);
      const init = normal(0.02);
      // Section 2.3: what is added to the residual stream shrinks with the number of additions.
      const outputInit = normal(0.02 / Math.sqrt(2 * depth));
      const ids = net.input([inputSize], 'int64');
      const { table, vectors } = embedding(net, ids, 'wte', { vocabulary, width: count * headWidth, init });
      let x = dropout(net, positionEmbedding(net, vectors, 'wpe'), 'dropout', rate);
      const biases = [causalMask(net, inputSize)];
      for (let i = 0; i < depth; i++) {
        x = preNormBlock(net, x, `h.${String(i)}`, {
          heads: count,
          dropout: rate,
          epsilon: EPSILON,
          attention: { biases, dropout: rate, init, outputInit },
          mlp: { init, outputInit },
        });
      }
      net.output(tiedHead(net, layerNorm(net, x, 'ln_f', EPSILON), table, vocabulary), 'logits');
    },
  };
}

export const GPTS: readonly Architecture[] = [
  // 256 tokens: the bytes of a text.
  gpt('gpt-mini', { layers: 6, heads: 6, headWidth: 32, context: 128, vocabulary: 256 }),
  gpt('gpt2', { layers: 12, heads: 12, headWidth: 64, context: 1024, vocabulary: 50_257 }),
];
