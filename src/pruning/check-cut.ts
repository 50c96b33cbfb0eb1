/** A cut model held against the original with zeros in place of what was removed. */
import type { ModelProto } from 'onnx-buf';
import { FlowCompressError } from '../errors.js';
import type { Engine, Feeds, HostTensor } from '../runtime/engine.js';
import { runOnce } from '../runtime/run-once.js';
import { numbersOf } from '../runtime/scores.js';
import { maskedModel } from './cut.js';
import type { Selection } from './selection.js';

/** Largest difference of an output, relative to its largest absolute value. */
const TOLERANCE = 1e-5;

/**
 * Runs both models on the same feeds.
 * @returns the largest relative difference of all outputs
 * @throws FlowCompressError `internal` naming an output that differs by more than 1e-5 of its largest absolute value
 */
export async function checkCut(
  engine: Engine,
  original: ModelProto,
  cut: ModelProto,
  selection: Selection,
  feeds: Feeds,
): Promise<number> {
  return compareCut(engine, maskedModel(original, selection), cut, feeds);
}

/** The same for a cut model, and what it has to compute. @param masked the original with zeros */
export async function compareCut(engine: Engine, masked: ModelProto, cut: ModelProto, feeds: Feeds): Promise<number> {
  const expected = await runOnce(engine, masked, feeds);
  const found = await runOnce(engine, cut, feeds);
  let worst = 0;
  for (const [name, reference] of Object.entries(expected)) {
    const difference = relativeDifference(reference, found[name]);
    if (!(difference <= TOLERANCE)) {
      throw new FlowCompressError(
        'internal',
        `The cut model differs from the original with zeros: output ${name} by ${difference.toPrecision(3)}.`,
        { node: name, hint: 'This is a defect of the pruning rules: please report the model.' },
      );
    }
    worst = Math.max(worst, difference);
  }
  return worst;
}

/** Infinity where type or dims differ, or one is not finite where the other is. */
export function relativeDifference(expected: HostTensor, found: HostTensor | undefined): number {
  if (found?.type !== expected.type || found.dims.join() !== expected.dims.join()) return Infinity;
  const [a, b] = [numbersOf(expected), numbersOf(found)];
  let [largest, difference] = [0, 0];
  for (let i = 0; i < a.length; i++) {
    const [x, y] = [Number(a[i]), Number(b[i])];
    if (Object.is(x, y)) continue;
    if (!Number.isFinite(x) || !Number.isFinite(y)) return Infinity;
    difference = Math.max(difference, Math.abs(x - y));
  }
  for (const value of a) if (Number.isFinite(Number(value))) largest = Math.max(largest, Math.abs(Number(value)));
  return difference === 0 ? 0 : difference / (largest || 1);
}
