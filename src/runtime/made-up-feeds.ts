/** Feeds for a model without data, in shapes the model declares, with open sizes filled in: fractions for floats, zeros for the rest. */
import { allocate } from '../data/elements.js';
import { FlowCompressError } from '../errors.js';
import { dataTypeInfo } from '../onnx/dtypes.js';
import type { Graph, Value } from '../onnx/graph.js';
import { declaredDims } from '../onnx/value-info.js';
import type { Feeds, HostTensor, HostType } from './engine.js';

export interface MadeUpFeeds {
  readonly feeds: Feeds;
  /** Samples in the batch. */
  readonly rows: number;
  /** Inputs whose open sizes were guessed, as `image [1, 3, 224, 224]`; an open batch of 1 is no guess. */
  readonly assumptions: readonly string[];
}

/** Side of images and length of sequences where the model leaves them open. */
const GUESSED_SIDE = 224;
const GUESSED_LENGTH = 128;
/** A model with inputs beyond this is not run for its shapes alone. */
const MOST_ELEMENTS = 2 ** 28;

const HOST_TYPES: ReadonlySet<string> = new Set<HostType>([
  'float16',
  'float32',
  'float64',
  'int8',
  'uint8',
  'int16',
  'uint16',
  'int32',
  'uint32',
  'int64',
  'uint64',
  'bool',
]);

function isHostType(name: string): name is HostType {
  return HOST_TYPES.has(name);
}

/**
 * @param batch rows where the model leaves them open
 * @throws FlowCompressError `unsupported` for inputs that are no tensors, of unknown rank, of strings, or too large
 */
export function guessFeeds(graph: Graph, batch = 1): MadeUpFeeds {
  const feeds: Feeds = {};
  const assumptions: string[] = [];
  // A dimension of one name has one size in all inputs.
  const named = new Map<string, number>();
  let rows = 1;
  for (const input of graph.inputs) {
    if (!graph.isFed(input)) continue;
    const { type, declared } = signatureOf(input);
    const dims = declared.map((dim, axis) => {
      if (typeof dim === 'number' && dim > 0) return dim;
      const guess = axis === 0 ? batch : declared.length >= 4 ? GUESSED_SIDE : GUESSED_LENGTH;
      if (typeof dim !== 'string' || dim === '?' || dim === '') return guess;
      const size = named.get(dim) ?? guess;
      named.set(dim, size);
      return size;
    });
    if (dims.some((dim, axis) => axis > 0 && dim !== declared[axis])) {
      assumptions.push(`${input.name} [${dims.join(', ')}]`);
    }
    if (dims.length > 0) rows = Math.max(rows, dims[0]);
    feeds[input.name] = makeUp(input.name, type, dims);
  }
  return { feeds, rows, assumptions };
}

function signatureOf(input: Value): { type: HostType; declared: (number | string)[] } {
  const info = input.info?.type?.value;
  const declared = declaredDims(input.info);
  const type = info?.case === 'tensorType' ? dataTypeInfo(info.value.elemType).name : undefined;
  if (type === undefined || !isHostType(type) || !declared) {
    throw new FlowCompressError('unsupported', `input ${input.name} is not a tensor of numbers with a declared rank.`, {
      node: input.name,
    });
  }
  return { type, declared };
}

function makeUp(name: string, type: HostType, dims: number[]): HostTensor {
  const count = dims.reduce((product, dim) => product * dim, 1);
  if (count > MOST_ELEMENTS) {
    throw new FlowCompressError('unsupported', `input ${name} would have ${count} elements.`, { node: name });
  }
  const data = allocate(type, count);
  // Masks of ones let everything through; token numbers and pixels may well be 0. Floats differ, so that nothing cancels.
  if (/mask/i.test(name) && type !== 'float16') {
    if (data instanceof BigInt64Array || data instanceof BigUint64Array) data.fill(1n);
    else data.fill(1);
  } else if (data instanceof Float32Array || data instanceof Float64Array) {
    for (let i = 0; i < count; i++) data[i] = (1 + ((i * 7919) % 255)) / 256;
  }
  return { type, dims, data };
}
