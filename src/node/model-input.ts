/** Models as callers of the library give them: the path of a file or folder, the bytes of a file, or a decoded message. */
import { ModelProtoSchema, type ModelProto } from 'onnx-buf';
import { isMessage } from '@bufbuild/protobuf';
import { FlowCompressError } from '../errors.js';
import { decodeModel } from '../onnx/read.js';
import { isExternal } from '../onnx/tensor.js';
import { toBytes } from '../onnx/to-bytes.js';
import { visitTensors } from '../onnx/walk.js';
import { assertEncodable, modelByteLength } from '../onnx/write.js';
import { openModel } from './model-file.js';

/**
 * The path of an ONNX file or of a folder in the Hugging Face layout; the bytes of a file; or a model. Bytes and models
 * hold all of their weights and must not be changed while they are in use.
 */
export type ModelInput = string | Uint8Array | ModelProto;

/** A model that was opened, wherever it came from. */
export interface GivenModel {
  readonly model: ModelProto;
  /** What messages call it: its file, also where a folder was given, or what `nameOf` says. */
  readonly name: string;
  /** What an engine compiles: the path of the file, which may have external data beside it, or its bytes. */
  readonly content: string | Uint8Array;
  /** Size of the file and its external data. */
  readonly bytes: number;
  /** The file and those with its external data, none of which may be overwritten; empty for a model in memory. */
  readonly files: readonly string[];
}

/** What reports call a model: the path as it was given. @param position among several models, from 0 */
export function nameOf(input: ModelInput, position?: number): string {
  if (typeof input === 'string') return input;
  return position === undefined ? 'model in memory' : `model ${String(position + 1)}, in memory`;
}

/**
 * @param name for messages about a model in memory
 * @throws FlowCompressError as `openModel` and `decodeModel`; `bad-input` for weights in other files, which bytes and
 *   messages cannot lead to, and for what is no model at all; `unsupported` for a message above 2 GiB
 */
export async function openModelInput(
  input: ModelInput,
  { name = nameOf(input), signal }: { readonly name?: string; readonly signal?: AbortSignal } = {},
): Promise<GivenModel> {
  if (typeof input === 'string') {
    const { model, path, bytes, externalFiles } = await openModel(input, { signal });
    return { model, name: path, content: path, bytes, files: [path, ...externalFiles] };
  }
  const isBytes = input instanceof Uint8Array;
  if (!isBytes && !isMessage(input, ModelProtoSchema)) {
    throw new FlowCompressError(
      'bad-input',
      'A model is given as a path, as the bytes of a file, or as a ModelProto.',
      {
        node: name,
        hint: '`decodeModel` and `openModel` give a ModelProto.',
      },
    );
  }
  const model = isBytes ? decodeModel(input, name) : input;
  refuseExternal(model, name);
  if (!isBytes) assertEncodable(modelByteLength(model));
  const content = isBytes ? input : toBytes(model);
  return { model, name, content, bytes: content.length, files: [] };
}

function refuseExternal(model: ModelProto, name: string): void {
  visitTensors(model, (tensor, place) => {
    if (!isExternal(tensor)) return;
    throw new FlowCompressError(
      'bad-input',
      `${name}: the weights of "${tensor.name || place.owner}" are in another file.`,
      {
        node: tensor.name || place.owner,
        hint: 'Give the path of the model, so that its external data is found, or what `openModel` makes of it.',
      },
    );
  });
}
