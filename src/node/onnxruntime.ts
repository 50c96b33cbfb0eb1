/** The engine interface on onnxruntime-node. */
import { FlowCompressError, messageOf } from '../errors.js';
import * as ort from './ort.js';
import type {
  Engine,
  Feeds,
  HostData,
  HostTensor,
  HostType,
  Session,
  SessionOptions,
  ValueSignature,
} from '../runtime/engine.js';

const LEVELS = { disabled: 'disabled', basic: 'basic', extended: 'extended', all: 'all' } as const;

/**
 * Engine on the native CPU provider of onnxruntime-node.
 * @param defaults options that every session of this engine starts from.
 */
export function nodeEngine(defaults: Pick<SessionOptions, 'threads'> = {}): Engine {
  return {
    provider: 'cpu',
    version: `onnxruntime-node ${ort.env.versions.node ?? 'unknown'}`,
    async createSession(model, options = {}) {
      const threads = options.threads ?? defaults.threads;
      const settings: ort.InferenceSession.SessionOptions = {
        executionProviders: ['cpu'],
        graphOptimizationLevel: LEVELS[options.optimization ?? 'all'],
        interOpNumThreads: 1,
        // Errors are thrown; on stderr they would appear a second time.
        logSeverityLevel: 4,
        ...(threads === undefined ? {} : { intraOpNumThreads: threads }),
        ...(options.memoryPattern === undefined ? {} : { enableMemPattern: options.memoryPattern }),
        ...(options.optimizedModelPath === undefined ? {} : { optimizedModelFilePath: options.optimizedModelPath }),
        ...(options.config === undefined ? {} : { extra: nested(options.config) }),
      };
      let session: ort.InferenceSession;
      try {
        session = await (typeof model === 'string'
          ? ort.InferenceSession.create(model, settings)
          : ort.InferenceSession.create(model, settings));
      } catch (error) {
        throw new FlowCompressError('bad-input', `ONNX Runtime rejects the model: ${messageOf(error)}`, {
          node: typeof model === 'string' ? model : undefined,
          hint: 'Check that the model runs in ONNX Runtime as it is; `flow-compress inspect` lists what it holds.',
          cause: error,
        });
      }
      return wrap(session);
    },
  };
}

function wrap(session: ort.InferenceSession): Session {
  const outputs = session.outputMetadata.map(signature);
  return {
    inputs: session.inputMetadata.map(signature),
    outputs,
    async run(feeds: Feeds, fetch?: readonly string[]) {
      const tensors: Record<string, ort.Tensor> = {};
      for (const [name, tensor] of Object.entries(feeds)) tensors[name] = toOrt(tensor);
      let results: ort.InferenceSession.ReturnType;
      try {
        results = fetch ? await session.run(tensors, [...fetch]) : await session.run(tensors);
      } catch (error) {
        throw new FlowCompressError('bad-input', `ONNX Runtime could not run the model: ${messageOf(error)}`, {
          hint: 'Check that the data has the shapes and types of the model inputs.',
          cause: error,
        });
      }
      const host: Record<string, HostTensor> = {};
      for (const [name, tensor] of Object.entries(results)) host[name] = fromOrt(tensor);
      return host;
    },
    release: () => session.release(),
  };
}

/** onnxruntime-node flattens nested `extra` objects into dotted session configuration keys. */
function nested(config: Record<string, string>): Record<string, unknown> {
  const root: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(config)) {
    const parts = key.split('.');
    let level = root;
    for (const part of parts.slice(0, -1)) {
      level[part] ??= {};
      level = level[part] as Record<string, unknown>;
    }
    level[parts[parts.length - 1]!] = value;
  }
  return root;
}

function signature(meta: ort.InferenceSession.ValueMetadata): ValueSignature {
  if (!meta.isTensor) {
    throw new FlowCompressError('unsupported', `'${meta.name}' is not a tensor (a sequence, map or optional).`, {
      node: meta.name,
      hint: 'Only models whose inputs and outputs are tensors are supported.',
    });
  }
  return { name: meta.name, type: meta.type as HostType, dims: meta.shape };
}

/** The tensor as onnxruntime takes it; the data is shared. */
export function toOrt(tensor: HostTensor): ort.Tensor {
  if (tensor.type === 'bool') return new ort.Tensor('bool', tensor.data as Uint8Array, tensor.dims);
  return new ort.Tensor(tensor.type, tensor.data as never, tensor.dims);
}

function fromOrt(tensor: ort.Tensor): HostTensor {
  return { type: tensor.type as HostType, dims: tensor.dims, data: tensor.data as HostData };
}
