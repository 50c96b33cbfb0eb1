/** External data: the entries by which a tensor points into another file, and the layout of such a file. No I/O. */
import { create } from '@bufbuild/protobuf';
import {
  StringStringEntryProtoSchema,
  TensorProto_DataLocation,
  type AttributeProto,
  type GraphProto,
  type ModelProto,
  type NodeProto,
  type StringStringEntryProto,
  type TensorProto,
} from 'onnx-buf';
import { FlowCompressError } from '../errors.js';
import { withFields } from './message.js';
import { isExternal, tensorByteLength } from './tensor.js';

/** Tensors of fewer bytes stay in the model file. */
export const EXTERNAL_THRESHOLD = 1024;

/** Where the contents of a tensor lie. */
export interface ExternalReference {
  /** Path relative to the model's folder, with forward slashes. */
  readonly location: string;
  /** Byte position in that file. */
  readonly offset: number;
  /** Bytes to read. */
  readonly length: number;
}

function refuse(tensor: TensorProto, problem: string, hint: string): FlowCompressError {
  return new FlowCompressError('bad-input', `Tensor "${tensor.name}" ${problem}.`, {
    node: tensor.name || undefined,
    hint,
  });
}

const EXPORT_AGAIN = 'The model is damaged or was not written by a usual exporter; export it again.';

function parseCount(tensor: TensorProto, key: string, text: string): number {
  const value = /^\d{1,16}$/.test(text) ? Number(text) : NaN;
  if (!Number.isSafeInteger(value))
    throw refuse(tensor, `has the external data ${key} "${text}", which is not a count of bytes`, EXPORT_AGAIN);
  return value;
}

/** Refuses a location that could lead out of the model's folder. */
function checkLocation(tensor: TensorProto, location: string): void {
  const problem =
    location === ''
      ? 'is empty'
      : location.includes('\0') || location.includes('\\')
        ? 'holds a backslash or a null character'
        : location.startsWith('/') || /^[a-z][a-z0-9+.-]*:/i.test(location)
          ? 'is absolute'
          : location.split('/').includes('..')
            ? 'leads out of the folder of the model'
            : location.endsWith('/') || location === '.'
              ? 'is a folder'
              : undefined;
  if (problem === undefined) return;
  throw refuse(
    tensor,
    `keeps its contents in "${location}", a path that ${problem}`,
    'External data must lie in the folder of the model. If you trust the file, load and save it with the onnx package to correct the path.',
  );
}

/**
 * Where a tensor with external data is stored.
 * @throws FlowCompressError `bad-input` for missing or malformed entries, a path out of the model's folder, and a
 *   length that does not fit the tensor's shape.
 */
export function readExternalReference(tensor: TensorProto): ExternalReference {
  const entries = new Map<string, string>();
  for (const { key, value } of tensor.externalData) {
    if (entries.has(key)) throw refuse(tensor, `states its external data ${key} twice`, EXPORT_AGAIN);
    entries.set(key, value);
  }
  const location = entries.get('location');
  if (location === undefined) throw refuse(tensor, 'has external data but does not name the file', EXPORT_AGAIN);
  checkLocation(tensor, location);
  const expected = tensorByteLength(tensor);
  const stated = entries.get('length');
  const length = stated === undefined ? expected : parseCount(tensor, 'length', stated);
  if (length !== expected) {
    throw refuse(
      tensor,
      `of shape [${tensor.dims.join(', ')}] needs ${expected} bytes but its external data has ${length}`,
      EXPORT_AGAIN,
    );
  }
  const offset = parseCount(tensor, 'offset', entries.get('offset') ?? '0');
  return { location, offset, length };
}

/** Turns an external tensor of a freshly decoded model into a plain one holding `contents`. Changes `tensor` itself. */
export function embedExternalData(tensor: TensorProto, contents: Uint8Array<ArrayBuffer>): void {
  tensor.rawData = contents;
  tensor.externalData = [];
  // Removing the own property makes the field unset, as in a tensor that never was external.
  Reflect.deleteProperty(tensor, 'dataLocation');
}

/** A model whose large initializers lie in a second file. */
export interface SplitModel {
  readonly model: ModelProto;
  /** Contents of the second file, padding included. Chunks are views of the tensors. */
  readonly chunks: readonly Uint8Array[];
  readonly byteLength: number;
  /** Number of tensors moved out. */
  readonly moved: number;
}

const LARGE = 1 << 20;

/** Start of a tensor in the data file: whole pages for large ones, so that they can be memory-mapped. */
function alignmentOf(byteLength: number): number {
  return byteLength >= LARGE ? 4096 : 64;
}

function entry(key: string, value: string | number): StringStringEntryProto {
  return create(StringStringEntryProtoSchema, { key, value: String(value) });
}

class Layout {
  readonly chunks: Uint8Array[] = [];
  position = 0;
  moved = 0;
  /** Tensors that share memory share their place in the file. */
  private readonly placed = new Map<ArrayBufferLike, Map<string, number>>();

  constructor(
    private readonly location: string,
    private readonly threshold: number,
  ) {}

  private place(data: Uint8Array): number {
    const key = `${data.byteOffset}+${data.length}`;
    const known = this.placed.get(data.buffer);
    const earlier = known?.get(key);
    if (earlier !== undefined) return earlier;
    const alignment = alignmentOf(data.length);
    const offset = Math.ceil(this.position / alignment) * alignment;
    if (offset > this.position) this.chunks.push(new Uint8Array(offset - this.position));
    this.chunks.push(data);
    this.position = offset + data.length;
    if (known) known.set(key, offset);
    else this.placed.set(data.buffer, new Map([[key, offset]]));
    return offset;
  }

  tensor(tensor: TensorProto): TensorProto {
    const { rawData } = tensor;
    if (rawData.length < this.threshold || isExternal(tensor)) return tensor;
    const offset = this.place(rawData);
    this.moved++;
    const copy = withFields(tensor, {
      externalData: [entry('location', this.location), entry('offset', offset), entry('length', rawData.length)],
      dataLocation: TensorProto_DataLocation.EXTERNAL,
    });
    Reflect.deleteProperty(copy, 'rawData');
    return copy;
  }

  graph(graph: GraphProto): GraphProto {
    return withFields(graph, {
      initializer: graph.initializer.map((tensor) => this.tensor(tensor)),
      node: graph.node.map((node) => this.node(node)),
    });
  }

  private node(node: NodeProto): NodeProto {
    if (!node.attribute.some((attribute) => attribute.g || attribute.graphs.length > 0)) return node;
    return withFields(node, { attribute: node.attribute.map((attribute) => this.attribute(attribute)) });
  }

  private attribute(attribute: AttributeProto): AttributeProto {
    if (attribute.g) return withFields(attribute, { g: this.graph(attribute.g) });
    if (attribute.graphs.length === 0) return attribute;
    return withFields(attribute, { graphs: attribute.graphs.map((graph) => this.graph(graph)) });
  }
}

/**
 * Moves the raw data of large initializers, of the graph and its subgraphs, to a second file. Tensors in attributes,
 * functions and sparse initializers stay: engines do not read those from elsewhere. The given model stays as it was.
 * @param location name of the second file, relative to the folder of the model.
 * @param threshold bytes from which a tensor is moved.
 */
export function splitExternalData(model: ModelProto, location: string, threshold = EXTERNAL_THRESHOLD): SplitModel {
  const layout = new Layout(location, Math.max(threshold, 1));
  const split = model.graph ? withFields(model, { graph: layout.graph(model.graph) }) : model;
  return { model: split, chunks: layout.chunks, byteLength: layout.position, moved: layout.moved };
}
