/** The loss of a trained model over a dataset, in inference mode: without dropout, with running statistics. */
import type { Batch } from '../data/dataset.js';
import { FlowCompressError, throwIfAborted } from '../errors.js';
import { toBytes } from '../onnx/to-bytes.js';
import type { Engine, Feeds, HostTensor } from '../runtime/engine.js';
import type { HintInput } from './stepper.js';
import type { MeasuringModel } from './trained-model.js';

/** What the loss holds the outputs for a batch against. */
export interface LossTargets {
  readonly target: HostTensor;
  /** [N]: factors on the losses of the samples. */
  readonly weights?: HostTensor;
  /** What the hints of the training graph are held against. */
  readonly hints?: readonly HintInput[];
}

/**
 * The mean over all samples.
 * @throws FlowCompressError `bad-input` when there are no samples; `aborted`
 */
export async function measureLoss(
  engine: Engine,
  { model, names }: MeasuringModel,
  batches: AsyncIterable<Batch>,
  targetsOf: (batch: Batch) => LossTargets | Promise<LossTargets>,
  signal?: AbortSignal,
): Promise<{ value: number; samples: number }> {
  const session = await engine.createSession(toBytes(model));
  try {
    let [sum, samples] = [0, 0];
    for await (const batch of batches) {
      throwIfAborted(signal);
      const { target, weights } = await targetsOf(batch);
      const feeds: Feeds = { ...batch.feeds, [names.target]: target };
      if (names.weights !== undefined && weights) feeds[names.weights] = weights;
      const results = await session.run(feeds);
      sum += batch.size * Number(results[names.loss]!.data[0]);
      samples += batch.size;
    }
    if (samples === 0) throw new FlowCompressError('bad-input', 'There are no samples to measure the loss on.');
    return { value: sum / samples, samples };
  } finally {
    await session.release();
  }
}
