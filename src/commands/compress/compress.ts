/** `compress`: cuts, bits and learning under one budget; the file is written, verified and measured on TEST. */
import type { ModelProto } from 'onnx-buf';
import { FlowCompressError, throwIfAborted } from '../../errors.js';
import type { ModelInput } from '../../node/model-input.js';
import { nearest, nextCandidate, fitting, TRIES } from '../../pipeline/candidates.js';
import { excess, missed, type Figures, type Limits } from '../../pipeline/limits.js';
import { findRecipe, renews, shownStages, stagesOf, withReplaced, type Recipe } from '../../pipeline/recipes.js';
import { HINT_WEIGHT } from '../../recovery/teachings.js';
import { formatBytes, formatMetricAmount } from '../../report/format.js';
import type { CompressReport } from '../../report/report.js';
import { planLines } from '../../report/table/compress.js';
import { makeCandidate, type Attempt } from './attempt.js';
import { compressOptionsSchema, type CompressOptions } from './options.js';
import { climbFurther, planCompression, type CompressPlan } from './plan.js';
import type { CompressRun } from './run.js';
import { comparedAnswers, compressedRows, limitsReached, plannedRows, verificationOf } from './rows.js';
import { parseOptions } from '../parse-options.js';
import { learningOf } from '../prune/learning.js';
import { errorOf, openPruningStudy, refuseBlindLimit } from '../prune/study.js';
import { possibleTeaching } from '../recover/taught-recovery.js';
import { refuseFixedBatch } from '../train/setup.js';
import type { Workspace } from '../workspace.js';
import { writeMeasured, type WrittenModel } from '../written-model.js';
import { writingRun, type WritingRun } from '../writing-run.js';

/** Options of `compressModel`: `data`, `output` and a limit are needed, everything else has a default. */
export type CompressInput = Pick<CompressOptions, 'data' | 'output'> & Partial<CompressOptions>;

/**
 * Compresses a model and writes `options.output`, whole or not at all.
 * @param input path of an ONNX file or of a folder in the Hugging Face layout, bytes, or a model
 * @returns the written model and the report about it, measured on TEST
 * @throws FlowCompressError `infeasible` when the limits cannot be met together (unless `bestEffort`), `bad-input`,
 *   `unsupported`, `io`, `aborted`, or `internal` when a cut or the written file does not compute what was planned
 */
export async function compressModel(
  input: ModelInput,
  options: CompressInput,
): Promise<{ model: ModelProto; report: CompressReport }> {
  const settings = parseOptions(compressOptionsSchema, options);
  return writingRun('compress', input, settings, options, (run) => compressed(run, settings));
}

async function compressed(
  writing: WritingRun,
  settings: CompressOptions,
): Promise<{ model: ModelProto; report: CompressReport }> {
  const { workspace, clock, control, rules, warnings } = writing;
  const study = await clock.stage('prepare', () => openPruningStudy(workspace, settings, control));
  let written: WrittenModel | undefined;
  try {
    warnings.push(...study.warnings);
    refuseBlindLimit(settings, workspace, study);
    const learning = await learningOf(workspace, study.original.model, settings, warnings);
    const recipe = recipeOf(settings, workspace);
    // New weights that do not learn are worth nothing.
    if (renews(recipe) && !learning) refuseFixedBatch(workspace);
    const run: CompressRun = {
      ...{ ...writing, study, settings, recipe, learning },
      limits: limitsOf(workspace, settings),
    };
    const planned = await planCompression(run);
    refuseHopeless(run, planned);
    const { attempts, plan } = await tryCandidates(run, planned);
    const chosen = bestOf(run.limits, attempts);
    refuseUnmet(run, chosen);

    written = await writeMeasured(workspace, chosen.model, settings, rules, clock, control);
    const { original, before, after, saved, measureOptions } = written;
    warnings.push(...written.warnings);
    const answers = await clock.stage('compare answers', () =>
      comparedAnswers(workspace, saved.path, measureOptions.dataset, control),
    );
    const rows = await compressedRows(run, chosen);
    await written.publish();
    const notes = [...new Set(warnings)];
    const report: CompressReport = {
      command: 'compress',
      method: recipe.name,
      seed: settings.seed,
      target: settings.target,
      model: original.shownAs,
      output: settings.output,
      ...clock.info(workspace.engine),
      ...(notes.length > 0 && { warnings: notes }),
      data: workspace.data,
      settings: shownSettings(run, chosen),
      limits: limitsReached(run, chosen),
      measure: measureOf(run),
      plan: plannedRows(run, plan, attempts, chosen),
      states: [{ name: 'original', quality: study.quality, bytes: workspace.opened.bytes }, ...chosen.stages],
      ...{ before, after },
      ...rows,
      ...(chosen.learning && { learning: chosen.learning }),
      ...(chosen.recovery && { recovery: chosen.recovery }),
      ...(answers && { answers }),
      verification: verificationOf(chosen),
    };
    return { model: chosen.model, report };
  } finally {
    await study.close();
    await written?.output.discard();
  }
}

/** The method with what was asked for in the place of its own, and without a teaching that cannot be. */
function recipeOf({ method, quantizer, teaching }: CompressOptions, workspace: Workspace): Recipe {
  const recipe = withReplaced(findRecipe(method)!, { quantizer, teaching });
  const stages = recipe.stages.map((stage) =>
    stage.kind === 'learn' ? { ...stage, teaching: possibleTeaching(stage.teaching, workspace) } : stage,
  );
  return { ...recipe, stages };
}

function limitsOf({ opened }: Workspace, { sizeRatio, maxSize, speedup, maxDrop }: CompressOptions): Limits {
  return {
    bytes: sizeRatio === undefined ? maxSize : Math.floor(opened.bytes / sizeRatio),
    timeRatio: speedup === undefined ? undefined : 1 / speedup,
    drop: maxDrop,
  };
}

/** Makes candidates until one keeps to all limits or enough were tried. */
async function tryCandidates(
  run: CompressRun,
  first: CompressPlan,
): Promise<{ attempts: Attempt[]; plan: CompressPlan }> {
  const { limits, learning, control, study } = run;
  const attempts: Attempt[] = [];
  let plan = first;
  for (;;) {
    let candidate = nextCandidate(plan.candidates, limits, learning !== undefined, attempts);
    while (!candidate && attempts.length < TRIES && isTooSlow(limits, attempts)) {
      const further = await climbFurther(run, plan);
      if (!further) break;
      plan = further;
      candidate = nextCandidate(plan.candidates, limits, learning !== undefined, attempts);
    }
    if (!candidate) return { attempts, plan };
    throwIfAborted(control.signal);
    const rows = plannedRows(run, plan, [...attempts, { candidate }], { candidate });
    control.onProgress?.({
      ...{ stage: 'plan', done: 1, total: 1 },
      note: planLines({ plan: rows, measure: measureOf(run), original: study.quality }).join('\n'),
    });
    const rung = plan.rungs.find(({ index }) => index === candidate.rung)!;
    const attempt = await makeCandidate(run, candidate, rung, attempts.length + 1);
    attempts.push(attempt);
    if (missed(limits, attempt.figures).length === 0) return { attempts, plan };
  }
}

/** Whether the last model that was made missed the speed: what is cut deeper may hold it. */
function isTooSlow(limits: Limits, attempts: readonly Attempt[]): boolean {
  const last = attempts.at(-1);
  return last !== undefined && missed(limits, last.figures).includes('timeRatio');
}

/** The smallest that keeps to the limits, where only the drop says how small; else the last that does; else the nearest. */
function bestOf(limits: Limits, attempts: readonly Attempt[]): Attempt {
  return attempts.reduce((best, one) => (excess(limits, one.figures) <= excess(limits, best.figures) ? one : best));
}

/** @throws FlowCompressError `infeasible` when no candidate keeps to the limits that can be told before anything learns */
function refuseHopeless(run: CompressRun, { candidates }: CompressPlan): void {
  const { limits, settings } = run;
  if (settings.bestEffort || fitting(candidates, limits).length > 0) return;
  const closest = nearest(candidates, limits)!;
  throw infeasible(run, { bytes: closest.bytes, timeRatio: closest.timeRatio, drop: undefined });
}

/** @throws FlowCompressError `infeasible` for limits that are not kept to, unless the best model will do */
function refuseUnmet(run: CompressRun, { figures }: Attempt): void {
  if (run.settings.bestEffort || missed(run.limits, figures).length === 0) return;
  throw infeasible(run, figures);
}

function infeasible({ limits, study }: CompressRun, figures: Figures): FlowCompressError {
  const { metric } = errorOf(study.quality);
  const names = missed(limits, figures);
  const isSlow = names.includes('timeRatio');
  const texts = names.map((name) => {
    switch (name) {
      case 'bytes':
        return `the nearest file has ${formatBytes(figures.bytes!)}, not ${formatBytes(limits.bytes!)}`;
      case 'timeRatio':
        return `it is ${(1 / figures.timeRatio!).toFixed(2)} times as fast as the original, not ${(1 / limits.timeRatio!).toFixed(2)} times`;
      case 'drop':
        return `it loses ${formatMetricAmount(metric, figures.drop!)} on VAL, ${formatMetricAmount(metric, limits.drop!)} are allowed`;
    }
  });
  return new FlowCompressError('infeasible', `The limits cannot be met together: ${texts.join('; ')}.`, {
    hint: `Ask for less, learn longer (--steps, --epochs, --max-time), ${isSlow ? 'time the files anew (--remeasure), ' : ''}or write the nearest model with --best-effort.`,
  });
}

function measureOf({ workspace }: Pick<CompressRun, 'workspace'>): CompressReport['measure'] {
  return workspace.scores === undefined ? 'relative-error' : 'kl';
}

function shownSettings(
  { workspace, settings, learning, recipe }: CompressRun,
  { rung, rounded, learning: first, recovery }: Attempt,
): NonNullable<CompressReport['settings']> {
  const stages = stagesOf(recipe, rung.index > 0);
  const hints = stages.some((stage) => stage.kind === 'learn' && stage.teaching === 'hints');
  return {
    stages: shownStages({ ...recipe, stages: stages.filter(({ kind }) => learning || kind !== 'learn') }),
    calibration: workspace.working.calib.size,
    ...(rounded && { execution: rounded.choice.name }),
    ...(settings.align !== undefined && { align: settings.align }),
    ...(learning && {
      batchSize: learning.batchSize,
      ...(settings.temperature !== undefined && { temperature: settings.temperature }),
      ...(first && { lr: learning.learningRate }),
      ...(hints && { hintWeight: settings.hintWeight ?? HINT_WEIGHT }),
      ...(recovery && { recoverLr: settings.recoverLr }),
      ...(settings.augment.length > 0 && { augment: settings.augment }),
    }),
  };
}
