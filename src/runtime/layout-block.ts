/** The block size of ONNX Runtime's own layout for convolutions (onnx/blocked.ts), found by looking. */
import { toBlocked } from '../onnx/blocked.js';
import { DataType } from '../onnx/dtypes.js';
import { emptyModel, Graph } from '../onnx/graph.js';
import { tensorInfo } from '../onnx/value-info.js';
import type { Engine } from './engine.js';
import { runOnce } from './run-once.js';
import { exposeValue } from './trace.js';

const CHANNELS = 64;
const found = new WeakMap<Engine, Promise<number | undefined>>();

/**
 * Elements of a block: 16 with AVX-512 or NEON, 8 with AVX2; undefined where the engine has no such layout. Two
 * positions of 64 channels are put in blocks: the second number of the first channel comes behind the first block.
 */
export function layoutBlock(engine: Engine): Promise<number | undefined> {
  let known = found.get(engine);
  if (!known) found.set(engine, (known = probe(engine)));
  return known;
}

async function probe(engine: Engine): Promise<number | undefined> {
  const graph = new Graph(emptyModel(15));
  exposeValue(graph, toBlocked(graph, graph.addInput(tensorInfo('x', DataType.FLOAT, [1, CHANNELS, 1, 2]))));
  const data = Float32Array.from({ length: 2 * CHANNELS }, (_, i) => i);
  try {
    const [result] = Object.values(
      await runOnce(engine, graph.toModel(), { x: { type: 'float32', dims: [1, CHANNELS, 1, 2], data } }),
    );
    const block = [...(result!.data as Float32Array)].indexOf(1);
    return block > 1 && CHANNELS % block === 0 ? block : undefined;
  } catch {
    return undefined;
  }
}
