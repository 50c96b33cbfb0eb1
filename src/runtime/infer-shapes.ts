/** Shapes of all values of a graph, as the engine infers them without running it. */
import type { ModelProto } from 'onnx-buf';
import type { Engine } from './engine.js';
import { exposeAll, openTraced } from './trace.js';

/** Dims by the name of every value that a node computes, with undefined for those that only a run can tell. */
export type InferredShapes = Map<string, readonly (number | undefined)[]>;

/** Compiles the model once, unoptimized; values of which not even the rank is known are absent. */
export async function inferShapes(engine: Engine, model: ModelProto): Promise<InferredShapes> {
  const session = await openTraced(engine, model, exposeAll, 'disabled');
  try {
    return new Map(
      [...session.inputs, ...session.outputs].map(({ name, dims }) => [
        name,
        dims.map((size) => (typeof size === 'number' ? size : undefined)),
      ]),
    );
  } finally {
    await session.release();
  }
}
