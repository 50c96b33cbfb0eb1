/** Decodes an ONNX file into a ModelProto, with every way it can be unreadable told apart. */
import { fromBinary, isFieldSet } from '@bufbuild/protobuf';
import { ModelProtoSchema, type ModelProto } from 'onnx-buf';
import { FlowCompressError, messageOf } from '../errors.js';
import { recogniseFile } from './file-kind.js';
import { findWireProblem, type WireProblem } from './wire-check.js';

/** Versions of the ONNX file format that are read: 3 (2017, the first with opset imports) to 13. */
export const SUPPORTED_IR_VERSIONS = { min: 3n, max: 13n } as const;

function notAModel(source: string, bytes: Uint8Array, why: string): FlowCompressError {
  const kind = recogniseFile(bytes);
  if (kind) {
    return new FlowCompressError('bad-input', `${source} is not an ONNX model: it looks like ${kind.looksLike}.`, {
      node: source,
      hint: kind.hint,
    });
  }
  return new FlowCompressError('bad-input', `${source} is not a readable ONNX model: ${why}.`, {
    node: source,
    hint: 'Check that it is the .onnx file and that it was downloaded or copied whole.',
  });
}

function describe(problem: WireProblem, size: number): string {
  const where = problem.field === '' ? 'the file' : `field "${problem.field}"`;
  const verdict = problem.truncated
    ? `the file is cut off (it has ${size} bytes)`
    : 'the file is damaged or of another kind';
  return `${verdict}: ${where} ${problem.problem}, at byte ${problem.at}`;
}

/**
 * Decodes the bytes of an ONNX file. The raw data of tensors are views of `bytes`, which must not be written to
 * afterwards. Fields that this version does not know are kept and written back.
 * @param source file name for messages.
 * @throws FlowCompressError `bad-input` that says what the file looks like when it is not a model, or where it is
 *   damaged, or which format version it needs.
 */
export function decodeModel(bytes: Uint8Array, source: string): ModelProto {
  if (bytes.length === 0) {
    throw new FlowCompressError('bad-input', `${source} is empty.`, {
      node: source,
      hint: 'The download or export was interrupted; fetch or export the model again.',
    });
  }
  const problem = findWireProblem(ModelProtoSchema, bytes);
  if (problem) throw notAModel(source, bytes, describe(problem, bytes.length));
  let model: ModelProto;
  try {
    // A plain Uint8Array: subarrays of a Node Buffer would be Buffers.
    model = fromBinary(ModelProtoSchema, new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength));
  } catch (error) {
    throw notAModel(source, bytes, `it cannot be decoded (${messageOf(error)})`);
  }
  if (!model.graph) throw notAModel(source, bytes, 'it holds no graph');
  checkIrVersion(model, source, bytes);
  return model;
}

function checkIrVersion(model: ModelProto, source: string, bytes: Uint8Array): void {
  if (!isFieldSet(model, ModelProtoSchema.field.irVersion)) throw notAModel(source, bytes, 'it states no ir_version');
  const { min, max } = SUPPORTED_IR_VERSIONS;
  if (model.irVersion >= min && model.irVersion <= max) return;
  throw new FlowCompressError(
    'bad-input',
    `${source} has ONNX IR version ${model.irVersion}; versions ${min} to ${max} are read.`,
    {
      node: source,
      hint:
        model.irVersion > max
          ? 'Export the model with a lower opset or IR version, or update Flow Compress.'
          : 'Convert it with onnx.version_converter, or export the model again with a current exporter.',
    },
  );
}
