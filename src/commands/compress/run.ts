/** A run of `compress`, as its stages see it. */
import { createHash } from 'node:crypto';
import type { ModelProto } from 'onnx-buf';
import { machineKey } from '../../node/profiler.js';
import type { RunDirectory } from '../../node/run-dir.js';
import { encodeModel } from '../../onnx/write.js';
import type { Limits } from '../../pipeline/limits.js';
import { quantizerOf, type Recipe } from '../../pipeline/recipes.js';
import type { RunControl } from '../../progress.js';
import type { Quality } from '../../recovery/validate.js';
import type { CompressOptions } from './options.js';
import { cacheFor } from '../measured-machine.js';
import { type QuantizeOptions, quantizeOptionsSchema } from '../quantize/options.js';
import { errorOf, type PruningStudy } from '../prune/study.js';
import type { LearningOptions } from '../recover/recovery.js';
import type { RunClock } from '../run-info.js';
import { timeRatios } from '../prune/time-ratios.js';
import type { Workspace } from '../workspace.js';

export interface CompressRun {
  readonly workspace: Workspace;
  /** The original in the form that is cut. */
  readonly study: PruningStudy;
  readonly settings: CompressOptions;
  /** With what takes the place of its own. */
  readonly recipe: Recipe;
  readonly limits: Limits;
  /** All learning together; undefined where nothing learns. */
  readonly learning: LearningOptions | undefined;
  readonly clock: RunClock;
  readonly control: RunControl;
  readonly run: RunDirectory | undefined;
  readonly warnings: string[];
}

/** How the weights are rounded. */
export function quantizeSettings({ settings, recipe }: CompressRun): QuantizeOptions {
  const { data, output, seed, threads, target, batchSize, execution, remeasure, minBits, formats } = settings;
  return quantizeOptionsSchema.parse({
    ...{ data, output, seed, threads, target, batchSize, execution, remeasure, minBits, formats },
    method: quantizerOf(recipe),
  });
}

/** How much worse a model is than the original, in units of the metric on VAL. */
export function dropFrom({ study }: Pick<CompressRun, 'study'>, quality: Quality): number {
  return errorOf(quality).error - errorOf(study.quality).error;
}

/** To the original; what was measured once on a machine holds there. Undefined where no speed is asked for. */
export async function timeRatioOf(
  { workspace, settings, limits, run, control }: CompressRun,
  model: ModelProto,
): Promise<number | undefined> {
  if (limits.timeRatio === undefined) return undefined;
  const hash = createHash('sha256');
  for (const one of [workspace.opened.model, model]) for (const chunk of encodeModel(one)) hash.update(chunk);
  const key = `time ratio ${machineKey(settings.threads)} ${workspace.timedBatches.join()} ${hash.digest('hex')}`;
  const cache = cacheFor(settings, { run: run?.cache });
  const known = Number(await cache.read(key));
  if (known > 0) return known;
  const [, ratio] = await timeRatios(workspace, [workspace.opened.model, model], control);
  await cache.write(key, String(ratio));
  return ratio;
}
