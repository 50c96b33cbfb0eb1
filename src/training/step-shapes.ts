/** Shapes that gradient rules need, of values that were never run at that batch size or that code has just added. */
import { TensorProto_DataType as DataType, type ModelProto } from 'onnx-buf';
import type { Shape } from '../autodiff/rule.js';
import { Graph, type Value } from '../onnx/graph.js';
import { tensorInfo } from '../onnx/value-info.js';
import type { Engine, Feeds } from '../runtime/engine.js';
import { traceShapes } from '../runtime/trace.js';

/**
 * Shape of every value at that batch size, from what two smaller ones show.
 * @param feedsFor feeds of that many samples
 */
export async function shapesOfBatch(
  engine: Engine,
  model: ModelProto,
  feedsFor: (rows: number) => Feeds,
  batchSize: number,
): Promise<Map<string, Shape>> {
  const [two, three] = [await traceShapes(engine, model, feedsFor(2)), await traceShapes(engine, model, feedsFor(3))];
  const shapes = new Map<string, Shape>();
  for (const [name, { dims }] of two) {
    const more = three.get(name)?.dims ?? dims;
    // Sizes grow linearly with the batch, if at all.
    shapes.set(
      name,
      dims.map((size, axis) => size + ((more[axis] ?? size) - size) * (batchSize - 2)),
    );
  }
  return shapes;
}

/**
 * Shapes of the values between some float32 values and one that is computed from them, by running that part alone on
 * zeros.
 * @param shapes holds those of `from`, without sizes left open
 */
export async function shapesBetween(
  engine: Engine,
  graph: Graph,
  from: readonly Value[],
  to: Value,
  shapes: ReadonlyMap<string, Shape>,
): Promise<Map<string, Shape>> {
  const part = new Graph(graph.toModel());
  const feeds: Feeds = {};
  for (const { name } of from) {
    const dims = [...(shapes.get(name) as readonly number[])];
    part.feed(part.mustGet(name), tensorInfo(name, DataType.FLOAT, dims));
    feeds[name] = { type: 'float32', dims, data: new Float32Array(dims.reduce((a, b) => a * b, 1)) };
  }
  const end = part.mustGet(to.name);
  end.info = tensorInfo(end.name, DataType.FLOAT, []);
  part.outputs.splice(0, part.outputs.length, end);
  part.removeDead();
  part.dropUnreadInputs();
  const traced = await traceShapes(engine, part.toModel(), feeds);
  return new Map([...traced].map(([name, { dims }]) => [name, dims]));
}
