/** Transformer blocks on tokens [N, tokens, width]: multi-head attention and MLP (Vaswani et al. 2017). */
import { intAttribute } from '../onnx/attributes.js';
import type { Value } from '../onnx/graph.js';
import { truncatedNormal, type Init } from './init.js';
import { activation, add, dropout, layerNorm, linear, reshape, slice, transpose } from './layers.js';
import type { Net } from './net.js';

/** What BERT, GPT, ViT and Swin start their weights with. */
export const TRANSFORMER_INIT: Init = truncatedNormal(0.02);

export interface AttentionOptions {
  readonly heads: number;
  /** Rate on the attention probabilities. */
  readonly dropout?: number;
  /** Added to the scores [.., heads, tokens, tokens] in this order: relative positions, masks. */
  readonly biases?: readonly Value[];
  readonly init?: Init;
  /** Of the output projection, when it differs. */
  readonly outputInit?: Init;
}

/**
 * softmax(Q K^T / sqrt(d) + biases) V per head and the output projection; layers `.q`, `.k`, `.v`, `.proj`. Axes between
 * the batch and the tokens (windows) stay apart.
 * @param x [N, ..., tokens, width]; the heads share the width evenly
 */
export function attention(net: Net, x: Value, name: string, options: AttentionOptions): Value {
  const { heads, init = TRANSFORMER_INIT, outputInit = init, biases = [], dropout: rate = 0 } = options;
  const dims = net.dims(x);
  const outer = dims.slice(1, -2);
  const tokens = dims.at(-2) ?? 0;
  const width = dims.at(-1) ?? 0;
  const headWidth = width / heads;
  const axes = outer.map((_, i) => i + 1);
  const [t, h, d] = [axes.length + 1, axes.length + 2, axes.length + 3];

  const project = (part: 'q' | 'k' | 'v'): Value => linear(net, x, `${name}.${part}`, width, { init });
  const split = (y: Value, part: string, order: readonly number[]): Value => {
    const perHead = reshape(net, y, `${name}.${part}.split`, [...outer, tokens, heads, headWidth]);
    return transpose(net, perHead, `${name}.${part}.heads`, [0, ...axes, ...order]);
  };
  const q = project('q');
  const scaledQ = net.op(`${name}.scale`, 'Mul', [q, net.scalar(1 / Math.sqrt(headWidth))], dims);
  const queries = split(scaledQ, 'q', [h, t, d]);
  const keys = split(project('k'), 'k', [h, d, t]);
  const values = split(project('v'), 'v', [h, t, d]);

  const square = [1, ...outer, heads, tokens, tokens];
  let scores = net.op(`${name}.scores`, 'MatMul', [queries, keys], square);
  for (const [i, bias] of biases.entries()) scores = net.op(`${name}.bias${String(i)}`, 'Add', [scores, bias], square);
  let weights = net.op(`${name}.softmax`, 'Softmax', [scores], square, [intAttribute('axis', -1)]);
  weights = dropout(net, weights, `${name}.dropout`, rate);
  const context = net.op(`${name}.context`, 'MatMul', [weights, values], [1, ...outer, heads, tokens, headWidth]);
  const merged = transpose(net, context, `${name}.merge`, [0, ...axes, h, t, d]);
  const joined = reshape(net, merged, `${name}.join`, [...outer, tokens, width]);
  return linear(net, joined, `${name}.proj`, width, { init: outputInit });
}

export interface MlpOptions {
  readonly hidden: number;
  readonly init?: Init;
  /** Of the second layer, when it differs. */
  readonly outputInit?: Init;
}

/** Two linear layers with GELU between them; layers `.fc1` and `.fc2`. */
export function mlp(net: Net, x: Value, name: string, options: MlpOptions): Value {
  const { hidden, init = TRANSFORMER_INIT, outputInit = init } = options;
  const y = activation(net, linear(net, x, `${name}.fc1`, hidden, { init }), `${name}.gelu`, 'gelu');
  return linear(net, y, `${name}.fc2`, net.dims(x).at(-1) ?? 0, { init: outputInit });
}

export interface BlockOptions {
  readonly heads: number;
  /** Rate on what the two halves add. */
  readonly dropout: number;
  readonly epsilon: number;
  readonly attention?: Partial<AttentionOptions>;
  readonly mlp?: Partial<MlpOptions>;
}

/** Normalize first: x + attention(norm(x)), then x + mlp(norm(x)), as in ViT and GPT-2. */
export function preNormBlock(net: Net, x: Value, name: string, options: BlockOptions): Value {
  const { heads, dropout: rate, epsilon } = options;
  const hidden = 4 * (net.dims(x).at(-1) ?? 0);
  const normed = layerNorm(net, x, `${name}.norm1`, epsilon);
  const attended = attention(net, normed, `${name}.attn`, { heads, ...options.attention });
  const y = add(net, x, dropout(net, attended, `${name}.dropout1`, rate), `${name}.add1`);
  const moved = mlp(net, layerNorm(net, y, `${name}.norm2`, epsilon), `${name}.mlp`, { hidden, ...options.mlp });
  return add(net, y, dropout(net, moved, `${name}.dropout2`, rate), `${name}.add2`);
}

/** Normalize last: norm(x + attention(x)), then norm(x + mlp(x)), as in the first transformer and BERT. */
export function postNormBlock(net: Net, x: Value, name: string, options: BlockOptions): Value {
  const { heads, dropout: rate, epsilon } = options;
  const hidden = 4 * (net.dims(x).at(-1) ?? 0);
  const attended = attention(net, x, `${name}.attn`, { heads, ...options.attention });
  const sum = add(net, x, dropout(net, attended, `${name}.dropout1`, rate), `${name}.add1`);
  const y = layerNorm(net, sum, `${name}.norm1`, epsilon);
  const moved = mlp(net, y, `${name}.mlp`, { hidden, ...options.mlp });
  const result = add(net, y, dropout(net, moved, `${name}.dropout2`, rate), `${name}.add2`);
  return layerNorm(net, result, `${name}.norm2`, epsilon);
}

/** The first token of every sequence, [N, width]. */
export function firstToken(net: Net, x: Value, name: string): Value {
  const taken = slice(net, x, name, [1], { start: 0, end: 1 });
  return reshape(net, taken, `${name}.flat`, [net.dims(x).at(-1) ?? 0]);
}

/** Rows of a learned table [vocabulary, width] by token number. */
export function embedding(
  net: Net,
  ids: Value,
  name: string,
  size: { readonly vocabulary: number; readonly width: number; readonly init?: Init },
): { table: Value; vectors: Value } {
  const { vocabulary, width, init = TRANSFORMER_INIT } = size;
  const table = net.parameter(`${name}.weight`, [vocabulary, width], init);
  return { table, vectors: net.op(name, 'Gather', [table, ids], [...net.dims(ids), width]) };
}

/** Adds a learned vector to every position; parameter [1, tokens, width]. */
export function positionEmbedding(net: Net, x: Value, name: string): Value {
  const [, ...dims] = net.dims(x);
  const table = net.parameter(`${name}.weight`, [1, ...dims], TRANSFORMER_INIT);
  return add(net, x, table, name);
}
