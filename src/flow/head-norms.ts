/** Norms of softmax(Q K^T) V, one number per sample and head. */
import { reduce, reshape } from '../onnx/ops.js';
import type { Probe } from '../runtime/probe.js';
import { notPerSample } from './activation-norms.js';
import type { AttentionBlock } from './attention.js';
import { rowsOfSamples } from './sample-axis.js';

/** Norms of the head outputs of a batch: `norms` [samples, heads], each over `elements` numbers in `tokens` rows. */
export interface HeadNorms {
  readonly norms: Float64Array;
  readonly elements: number;
  readonly tokens: number;
}

/** @param onBatch receives the norms of each batch's real samples */
export function headNormsProbe(block: AttentionBlock, onBatch: (norms: HeadNorms, samples: number) => void): Probe {
  const { heads, headOfMatrix } = block;
  const matrices = headOfMatrix.length;
  let tokens = 0;
  let elements = 0;
  return {
    attach({ graph, shapes }) {
      const name = block.context.outputs[0]!.name;
      const [rows, columns] = shapes.get(name)!.dims.slice(-2) as [number, number];
      tokens = (rows * matrices) / heads;
      elements = tokens * columns;
      const flat = reshape(graph, graph.mustGet(name), [-1, matrices, rows * columns]);
      return [reduce(graph, 'ReduceSumSquare', flat, [2])];
    },
    update([tensor], batch) {
      const squares = rowsOfSamples(tensor!, batch, matrices);
      if (!squares) throw notPerSample(block);
      const norms = new Float64Array(batch.size * heads);
      for (let i = 0; i < squares.length; i++) {
        norms[Math.floor(i / matrices) * heads + headOfMatrix[i % matrices]!]! += squares[i]!;
      }
      onBatch({ norms: norms.map(Math.sqrt), elements, tokens }, batch.size);
    },
  };
}
