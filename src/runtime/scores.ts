/** What the outputs of a model say about each sample: classes, ranks and signal energies, as plain numbers. */
import { float16ToFloat32 } from '../onnx/float-formats.js';
import type { Feeds, HostTensor } from './engine.js';

/** How the outputs of a model are read. */
export type Head =
  /** One score per class: [samples, classes], possibly followed by axes of length 1. */
  | { readonly kind: 'classes'; readonly output: number; readonly classes: number }
  /** One score per sample, [samples] or [samples, 1]: class 1 above a threshold, else class 0. */
  | { readonly kind: 'binary'; readonly output: number }
  /** The class itself: integers [samples] or [samples, 1]. */
  | { readonly kind: 'index'; readonly output: number }
  | { readonly kind: 'other' };

export type Numbers = HostTensor['data'];

const FLOATS = new Set(['float16', 'float32', 'float64']);

export function isFloat(tensor: HostTensor): boolean {
  return FLOATS.has(tensor.type);
}

/** The elements as numbers that can be computed with; float16 is decoded. */
export function numbersOf(tensor: HostTensor): Numbers {
  return tensor.type === 'float16' && tensor.data instanceof Uint16Array ? float16ToFloat32(tensor.data) : tensor.data;
}

export interface NamedTensor {
  readonly name: string;
  readonly tensor: HostTensor;
}

/** Names that exporters give to class scores. */
const SCORE_NAME = /logit|prob|score|class|softmax|pred/i;
/** Names of outputs that are no scores although they may be flat: images, embeddings, reconstructions. */
const CONTENT_NAME = /image|img|pixel|audio|wave|recon|decoded|embed|feature|hidden|latent|pooler/i;

/**
 * The output that tells the class of every sample: the only output, if it has the right shape, or of several the first
 * that has and is named like scores. Without labels an output of the shape of an input, or one that is named like an image
 * or an embedding, is not taken for scores.
 * @param feeds what was fed; the first axis of every tensor counts the rows
 */
export function headOf(outputs: readonly NamedTensor[], feeds: Feeds, labelled: boolean): Head {
  const inputs = Object.values(feeds);
  const rows = inputs[0]?.dims[0];
  for (const [index, { name, tensor }] of outputs.entries()) {
    const head = formOf(tensor, index, rows);
    const named = SCORE_NAME.test(name);
    if (!head || (outputs.length > 1 && !named)) continue;
    const mirrored = inputs.some((input) => input.dims.join() === tensor.dims.join());
    if (labelled || named || head.kind === 'index' || !(mirrored || CONTENT_NAME.test(name))) return head;
  }
  return { kind: 'other' };
}

function formOf(tensor: HostTensor, output: number, rows: number | undefined): Head | undefined {
  if (tensor.dims.length === 0 || tensor.dims[0] !== rows || tensor.dims.slice(2).some((dim) => dim !== 1))
    return undefined;
  const classes = tensor.dims[1] ?? 1;
  if (!isFloat(tensor)) return classes === 1 && tensor.type !== 'bool' ? { kind: 'index', output } : undefined;
  if (classes === 0) return undefined;
  return classes === 1 ? { kind: 'binary', output } : { kind: 'classes', output, classes };
}

/** Position of the greatest of `count` scores from `from` on (the first of equals), or -1 when one is NaN. */
export function argmax(scores: Numbers, from: number, count: number): number {
  let best = from;
  for (let i = from; i < from + count; i++) {
    if (Number.isNaN(scores[i])) return -1;
    if (scores[i] > scores[best]) best = i;
  }
  return best - from;
}

/** How many of the `count` scores from `from` on come before that of class `label`: 0 when it is the top one. */
export function rankOf(scores: Numbers, from: number, count: number, label: number): number {
  const own = scores[from + label];
  let rank = 0;
  for (let i = 0; i < count; i++) {
    const other = scores[from + i];
    if (other > own || (other === own && i < label)) rank++;
  }
  return rank;
}

/** Streaming signal-to-noise ratio of one output against a reference. */
export interface SignalTally {
  signal: number;
  noise: number;
}

/** Float32 cannot resolve more than 2^-24 of a signal; equal outputs report this many decibels. */
export const SQNR_CEILING_DB = 20 * Math.log10(2 ** 24);

/** Adds elements of both tensors to a tally; elements where either is not finite are left out. @returns how many those were. */
export function addSignal(tally: SignalTally, reference: Numbers, value: Numbers, count: number): number {
  let skipped = 0;
  for (let i = 0; i < count; i++) {
    const expected = Number(reference[i]);
    const difference = expected - Number(value[i]);
    if (!Number.isFinite(difference)) {
      skipped++;
      continue;
    }
    tally.signal += expected * expected;
    tally.noise += difference * difference;
  }
  return skipped;
}

/** 10 log10(signal / noise), within +-SQNR_CEILING_DB; undefined when both are zero. */
export function decibels({ signal, noise }: SignalTally): number | undefined {
  if (signal === 0 && noise === 0) return undefined;
  const value = 10 * Math.log10(signal / noise);
  return Math.max(-SQNR_CEILING_DB, Math.min(SQNR_CEILING_DB, value));
}
