/** `prune`: fewer filters and layers; what is left learns from the original; the file is written and measured on TEST. */
import type { ModelProto } from 'onnx-buf';
import type { ModelInput } from '../../node/model-input.js';
import { modelByteLength } from '../../onnx/write.js';
import {
  findPruningMethod,
  type PruningMethod,
  type ShrinkingMethod,
  type StructuredMethod,
  type WeightMethod,
} from '../../pruning/methods.js';
import { dependenciesOf } from '../../pruning/step.js';
import type { PruneReport, RecoverySummary } from '../../report/report.js';
import { parseOptions } from '../parse-options.js';
import { type PruneOptions, pruneOptionsSchema } from './options.js';
import { learnAfterCuts, learnBetween, learningOf } from './learning.js';
import { prunedRows } from './rows.js';
import { normScalesFor } from './norm-scales.js';
import { cutOfShrunk, learnShrinking, planShrinking } from './shrinking.js';
import { DEFAULT_SPARSITY, pruneWeights } from './single-weights.js';
import { runCourse, type Course, type CourseRequest } from './course.js';
import {
  budgetFor,
  budgetOf,
  dropOf,
  refuseNothingKept,
  refuseUnmet,
  refuseUnreachable,
  SLACK,
  type Limits,
} from './limits.js';
import { openPruningStudy, refuseBlindLimit, type PruningRun } from './study.js';
import { taughtSettings } from '../recover/recovery.js';
import { writeMeasured, type WrittenModel } from '../written-model.js';
import { writingRun, type WritingRun } from '../writing-run.js';

/** Options of `pruneModel`: `data` and `output` are needed, everything else has a default. */
export type PruneInput = Pick<PruneOptions, 'data' | 'output'> & Partial<PruneOptions>;

/**
 * Prunes a model and writes `options.output`, whole or not at all.
 * @param input path of an ONNX file or of a folder in the Hugging Face layout, bytes, or a model
 * @returns the written model and the report about it, measured on TEST
 * @throws FlowCompressError `infeasible` when the goal or the allowed drop cannot be met (unless `bestEffort`), `bad-input`,
 *   `unsupported`, `io`, `aborted`, or `internal` when a cut does not compute what the original computes with zeros
 */
export async function pruneModel(
  input: ModelInput,
  options: PruneInput,
): Promise<{ model: ModelProto; report: PruneReport }> {
  const settings = parseOptions(pruneOptionsSchema, options);
  return writingRun('prune', input, settings, options, (run) => prunedAndWritten(run, settings));
}

async function prunedAndWritten(
  { clock, workspace, run, control, rules, warnings }: WritingRun,
  settings: PruneOptions,
): Promise<{ model: ModelProto; report: PruneReport }> {
  const method = methodOf(settings);
  const study = await clock.stage('prepare', () => openPruningStudy(workspace, settings, control));
  let written: WrittenModel | undefined;
  try {
    warnings.push(...study.warnings);
    refuseBlindLimit(settings, workspace, study);
    const needed = method.kind === 'shrinking';
    const learning = await learningOf(workspace, study.original.model, settings, warnings, needed);
    const pruning = { workspace, study, settings, learning, clock, control, run };
    const { model, limits, ...found } = await pruned(pruning, method, warnings);
    refuseUnmet(limits, settings);

    written = await writeMeasured(workspace, model, settings, rules, clock, control);
    const { original, before, after } = written;
    warnings.push(...written.warnings);
    await written.publish();
    const notes = [...new Set(warnings)];
    const report: PruneReport = {
      command: 'prune',
      method: method.name,
      seed: settings.seed,
      target: settings.target,
      model: original.shownAs,
      output: settings.output,
      ...clock.info(workspace.engine),
      ...(notes.length > 0 && { warnings: notes }),
      data: workspace.data,
      settings: {
        ...found.shown,
        calibration: workspace.working.calib.size,
        ...(learning && {
          lr: learning.learningRate,
          batchSize: learning.batchSize,
          ...taughtSettings(learning),
        }),
        ...(learning && settings.augment.length > 0 && { augment: settings.augment }),
      },
      ...limits,
      measure: workspace.scores === undefined ? 'relative-error' : 'kl',
      original: study.quality,
      ...{ before, after },
      ...found.rows,
    };
    return { model, report };
  } finally {
    await study.close();
    await written?.output.discard();
  }
}

/** What a method made, and what the report says of it. */
interface Pruned {
  readonly model: ModelProto;
  readonly limits: Limits;
  readonly shown: NonNullable<PruneReport['settings']>;
  readonly rows: Pick<PruneReport, 'groups' | 'layers' | 'removed' | 'steps' | 'recovery' | 'verification'>;
}

function pruned(pruning: PruningRun, method: PruningMethod, warnings: string[]): Promise<Pruned> {
  switch (method.kind) {
    case 'structured':
      return withoutUnits(pruning, method, warnings);
    case 'shrinking':
      return withoutShrunk(pruning, method);
    case 'weights':
      return withoutWeights(pruning, method, warnings);
  }
}

/** Cuts, and learns afterwards. */
async function withoutUnits(pruning: PruningRun, method: StructuredMethod, warnings: string[]): Promise<Pruned> {
  const { workspace, study, settings, learning, clock, control, run } = pruning;
  const normScales =
    method.score === 'bn-scale'
      ? await clock.stage('prepare', () => normScalesFor(workspace, study, settings, warnings))
      : undefined;
  const request: CourseRequest = {
    ...{ workspace, study, method, normScales, settings, clock, run },
    // Without a limit on the drop nothing is decided between cuts, and closed form serves as well.
    learn: learning && settings.maxDrop !== undefined ? (state) => learnBetween(pruning, state, learning) : undefined,
  };
  await clock.stage('prepare', () => refuseUnreachable(request));
  const course = await runCourse(request, control);
  refuseNothingKept(course, study, settings);
  const budget = await budgetOf(workspace, study, settings, course.cost, course.state.model);
  // Learning takes longer than all before it, and changes no cost.
  refuseUnmet(budget, settings);
  const learned =
    learning && course.steps.some(({ accepted }) => accepted)
      ? await clock.stage('learn', () => learnAfterCuts(pruning, course.state, learning, true))
      : undefined;
  return cutDown(pruning, course, budget, learned?.state ?? course.state.model, learned?.summary, {
    score: method.score,
    ...(settings.order !== 'lowest' && { order: settings.order }),
    stages: settings.stages,
  });
}

/** Learns, and cuts afterwards. */
async function withoutShrunk(pruning: PruningRun, method: ShrinkingMethod): Promise<Pruned> {
  const { workspace, study, settings, learning, clock, control, run } = pruning;
  const plan = await planShrinking(pruning, method);
  refuseUnmet({ budget: budgetFor(settings, plan.left) }, settings);
  const learned = await clock.stage('learn', () => learnShrinking(pruning, learning!, method, plan));
  const cut = cutOfShrunk(method, settings);
  const course = await runCourse(
    { workspace, study, ...cut, start: learned.state, learn: undefined, clock, run },
    control,
  );
  const budget = await budgetOf(workspace, study, settings, course.cost, course.state.model);
  return cutDown(pruning, course, budget, course.state.model, learned.summary, { stages: cut.settings.stages });
}

async function cutDown(
  { workspace, study, settings, clock }: PruningRun,
  course: Course,
  budget: Pick<Limits, 'budget'>,
  model: ModelProto,
  recovery: RecoverySummary | undefined,
  shown: Pruned['shown'],
): Promise<Pruned> {
  const { engine, feedsFor, fixedBatch } = workspace;
  const dependencies = await dependenciesOf(engine, study.original.model, feedsFor, fixedBatch);
  return {
    model,
    limits: {
      ...budget,
      ...(await clock.stage('evaluate on VAL', () => dropOf(study, settings, model))),
    },
    shown: {
      ...shown,
      ...(settings.align !== undefined && { align: settings.align }),
    },
    rows: {
      ...prunedRows(study.original, course.state, dependencies, course.divergences, fixedBatch ?? 1),
      steps: [...course.steps],
      ...(recovery && { recovery }),
      verification: {
        checks: [
          {
            name: 'every cut model computes what the model before it computes with zeros',
            passed: true,
            detail: `largest relative difference ${course.difference.toExponential(1)}`,
          },
        ],
      },
    },
  };
}

async function withoutWeights(pruning: PruningRun, method: WeightMethod, warnings: string[]): Promise<Pruned> {
  const { study, settings, clock } = pruning;
  const requested = settings.sparsity ?? DEFAULT_SPARSITY;
  const { model, steps, summary, sparsity, bytesInFloat } = await pruneWeights(pruning, method);
  const { bytes } = pruning.workspace.opened;
  const times = (size: number): string => `${(bytes / size).toFixed(1)} times`;
  warnings.push(
    `The weights that are left are stored in 8 bits. Of the ${times(modelByteLength(model))} by which the file is smaller, ${times(bytesInFloat)} come of the removal.`,
  );
  return {
    model,
    limits: {
      budget: { of: 'params', requested, achieved: sparsity, met: sparsity >= requested - SLACK },
      ...(await clock.stage('evaluate on VAL', () => dropOf(study, settings, model))),
    },
    shown: { sparsity: requested },
    rows: { groups: [], layers: [], removed: [], steps, ...(summary && { recovery: summary }) },
  };
}

function methodOf({ method: name, score }: PruneOptions): PruningMethod {
  const method = findPruningMethod(name)!;
  return score === undefined || method.kind !== 'structured' ? method : { ...method, score };
}
