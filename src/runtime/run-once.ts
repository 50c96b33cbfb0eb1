/** A model that is run a single time. */
import type { ModelProto } from 'onnx-buf';
import { toBytes } from '../onnx/to-bytes.js';
import type { Engine, Feeds, HostTensor, SessionOptions } from './engine.js';

/** Compiles a model, runs it on one batch and lets it go. @throws what the engine reports */
export async function runOnce(
  engine: Engine,
  model: ModelProto,
  feeds: Feeds,
  options?: SessionOptions,
): Promise<Record<string, HostTensor>> {
  const session = await engine.createSession(toBytes(model), options);
  try {
    return await session.run(feeds);
  } finally {
    await session.release();
  }
}
