/** Proof that the written file is what was planned: its optimised graph is read back, its outputs are compared. */
import type { ModelProto } from 'onnx-buf';
import { FlowCompressError } from '../errors.js';
import type { Batch } from '../data/dataset.js';
import { toBytes } from '../onnx/to-bytes.js';
import type { Engine } from '../runtime/engine.js';

export interface OutputComparison {
  /** Largest absolute difference over all outputs and samples. */
  readonly maxAbsDiff: number;
  /** Root mean square difference relative to the root mean square of the simulation's outputs. */
  readonly relativeRms: number;
  readonly samples: number;
}

/** How far a correct file may be from its simulation: float kernels differ by summation order, int8 ones by single steps. */
export const TOLERANCE = { float: 1e-3, int8: 0.1 } as const;

/**
 * Runs the shipped model (as deployed, all optimisations) and the simulation (no optimisation) on one batch.
 * @param shipped path or bytes of the written file
 */
export async function compareWithSimulation(
  engine: Engine,
  shipped: string | Uint8Array,
  simulation: ModelProto,
  batch: Batch,
): Promise<OutputComparison> {
  const session = await engine.createSession(shipped);
  const reference = await engine.createSession(toBytes(simulation), { optimization: 'disabled' });
  try {
    const actual = await session.run(batch.feeds);
    const expected = await reference.run(batch.feeds);
    let maxAbsDiff = 0;
    let error = 0;
    let energy = 0;
    for (const [name, tensor] of Object.entries(expected)) {
      const a = actual[name]?.data;
      const b = tensor.data;
      if (!(a instanceof Float32Array) || !(b instanceof Float32Array)) continue;
      for (let i = 0; i < b.length; i++) {
        const difference = Math.abs(a[i]! - b[i]!);
        if (!(difference <= maxAbsDiff)) maxAbsDiff = difference;
        error += difference * difference;
        energy += b[i]! * b[i]!;
      }
    }
    if (Number.isNaN(maxAbsDiff)) {
      throw new FlowCompressError('internal', 'The written file computes NaN where its simulation does not.', {
        hint: 'Report this model; until then use --execution float.',
      });
    }
    return { maxAbsDiff, relativeRms: energy > 0 ? Math.sqrt(error / energy) : 0, samples: batch.size };
  } finally {
    await session.release();
    await reference.release();
  }
}

/** Operators of a graph by type, functions and Constant nodes not counted. */
export function countOperators(model: ModelProto): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const node of model.graph?.node ?? []) {
    if (node.opType !== 'Constant') counts[node.opType] = (counts[node.opType] ?? 0) + 1;
  }
  return Object.fromEntries(Object.entries(counts).sort(([a], [b]) => a.localeCompare(b)));
}
