/**
 * Encodes a ModelProto as a sequence of chunks. The contents of large tensors are passed through as they are in
 * memory; protobuf-es encodes everything around them. The concatenated chunks are, byte for byte, what protobuf-es
 * itself would write.
 */
import { ScalarType, create, toBinary, type DescField, type DescMessage, type Message } from '@bufbuild/protobuf';
import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import { ModelProtoSchema, TensorProtoSchema, type ModelProto } from 'onnx-buf';
import { FlowCompressError } from '../errors.js';

/** Largest message that protobuf implementations read. */
export const MAX_MODEL_BYTES = 2 ** 31 - 1;

/** Tensor contents of at least this many bytes are not copied. */
const LARGE_BYTES = 4096;

/** A model ready to be written. */
export interface EncodedModel {
  readonly byteLength: number;
  /** In file order. Chunks may be views of the model's tensors: write them before changing anything. */
  readonly chunks: readonly Uint8Array[];
}

type Fields = Record<string, unknown>;

/** The fields of a message by local name; messages have no index signature of their own. */
function fieldsOf(message: Message): Fields {
  return message as Message & Fields;
}

function isMessage(value: unknown): value is Message {
  return typeof value === 'object' && value !== null && '$typeName' in value;
}

const sortedFields = new WeakMap<DescMessage, readonly DescField[]>();

function fieldsInOrder(desc: DescMessage): readonly DescField[] {
  let fields = sortedFields.get(desc);
  if (!fields) {
    fields = [...desc.fields].sort((a, b) => a.number - b.number);
    sortedFields.set(desc, fields);
  }
  return fields;
}

/** Message types that may hold a tensor, directly or further down. */
function tensorHolders(): Set<string> {
  const holders = new Set<string>([TensorProtoSchema.typeName]);
  const seen = new Map<string, DescMessage>();
  const pending: DescMessage[] = [ModelProtoSchema];
  for (let desc = pending.pop(); desc; desc = pending.pop()) {
    if (seen.has(desc.typeName)) continue;
    seen.set(desc.typeName, desc);
    for (const field of desc.fields) if (field.message) pending.push(field.message);
  }
  for (let before = -1; before !== holders.size;) {
    before = holders.size;
    for (const desc of seen.values()) {
      if (desc.fields.some((field) => field.message && holders.has(field.message.typeName))) holders.add(desc.typeName);
    }
  }
  return holders;
}

const mayHoldTensors = tensorHolders();

function isLargeBytes(field: DescField, value: unknown): value is Uint8Array {
  return field.scalar === ScalarType.BYTES && value instanceof Uint8Array && value.length >= LARGE_BYTES;
}

class Encoder {
  readonly chunks: Uint8Array[] = [];
  byteLength = 0;
  /** Whether a message holds large bytes somewhere. */
  private heavy = new Map<Message, boolean>();

  private push(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    this.chunks.push(bytes);
    this.byteLength += bytes.length;
  }

  private isHeavy(desc: DescMessage, message: Message): boolean {
    if (!mayHoldTensors.has(desc.typeName)) return false;
    let heavy = this.heavy.get(message);
    if (heavy === undefined) {
      const fields = fieldsOf(message);
      heavy = desc.fields.some((field) => {
        const value = fields[field.localName];
        const inner = field.message;
        if (!inner) return isLargeBytes(field, value);
        if (Array.isArray(value)) return value.some((item) => isMessage(item) && this.isHeavy(inner, item));
        return isMessage(value) && this.isHeavy(inner, value);
      });
      this.heavy.set(message, heavy);
    }
    return heavy;
  }

  /** Writes a length-delimited field whose contents are heavy. */
  private child(field: DescField, desc: DescMessage, message: Message): void {
    const inner = new Encoder();
    inner.heavy = this.heavy;
    inner.message(desc, message);
    this.header(field, inner.byteLength);
    for (const chunk of inner.chunks) this.push(chunk);
  }

  private header(field: DescField, length: number): void {
    this.push(new BinaryWriter().tag(field.number, WireType.LengthDelimited).uint32(length).finish());
  }

  message(desc: DescMessage, message: Message): void {
    if (!this.isHeavy(desc, message)) {
      this.push(toBinary(desc, message));
      return;
    }
    const source = fieldsOf(message);
    // Light fields gather here until a heavy one comes.
    let part = create(desc);
    const flush = (): void => {
      this.push(toBinary(desc, part));
      part = create(desc);
    };
    for (const field of fieldsInOrder(desc)) {
      const name = field.oneof ? field.oneof.localName : field.localName;
      if (!Object.hasOwn(source, name)) continue;
      const value = source[name];
      const inner = field.message;
      if (isLargeBytes(field, value)) {
        flush();
        this.header(field, value.length);
        this.push(value);
      } else if (inner && !field.oneof && Array.isArray(value)) {
        let start = 0;
        const items: readonly unknown[] = value;
        items.forEach((item, i) => {
          if (!isMessage(item) || !this.isHeavy(inner, item)) return;
          fieldsOf(part)[name] = items.slice(start, i);
          start = i + 1;
          flush();
          this.child(field, inner, item);
        });
        fieldsOf(part)[name] = start === 0 ? items : items.slice(start);
      } else if (inner && !field.oneof && isMessage(value) && this.isHeavy(inner, value)) {
        flush();
        this.child(field, inner, value);
      } else {
        fieldsOf(part)[name] = value;
      }
    }
    part.$unknown = message.$unknown;
    flush();
  }
}

/**
 * Encodes a model without copying its large tensors. Takes the time of encoding the small parts; nothing is written yet.
 * The result may be longer than {@link MAX_MODEL_BYTES}: check before writing it.
 */
export function planEncoding(model: ModelProto): EncodedModel {
  const encoder = new Encoder();
  encoder.message(ModelProtoSchema, model);
  return { byteLength: encoder.byteLength, chunks: encoder.chunks };
}

/**
 * The bytes of a model file, in chunks. Deterministic: equal models give equal bytes.
 * @throws FlowCompressError `unsupported` beyond 2 GiB, which no protobuf implementation reads.
 */
export function encodeModel(model: ModelProto): readonly Uint8Array[] {
  const { byteLength, chunks } = planEncoding(model);
  assertEncodable(byteLength);
  return chunks;
}

/** @throws FlowCompressError `unsupported` when a model of `byteLength` bytes cannot be one file. */
export function assertEncodable(byteLength: number): void {
  if (byteLength <= MAX_MODEL_BYTES) return;
  throw new FlowCompressError('unsupported', `The model takes ${byteLength} bytes; an ONNX file cannot exceed 2 GiB.`, {
    hint: 'Save it with external data, which puts the weights in a second file.',
  });
}

/** Bytes that the encoded model takes, computed without copying its large tensors. */
export function modelByteLength(model: ModelProto): number {
  return planEncoding(model).byteLength;
}
