/** `prune`: fewer filters and layers; what is left learns from the original; the file is written and measured on TEST. */
import type { ModelProto } from 'onnx-buf';
import { assertWritableOutput } from '../node/atomic-file.js';
import { openModel } from '../node/model-file.js';
import type { ModelInput } from '../node/model-input.js';
import { Graph } from '../onnx/graph.js';
import { findLayers } from '../onnx/layers.js';
import {
  findPruningMethod,
  type PruningMethod,
  type ShrinkingMethod,
  type StructuredMethod,
  type WeightMethod,
} from '../pruning/methods.js';
import { sharedPlaces } from '../pruning/places.js';
import { cutModel, dependenciesOf, type PruningState } from '../pruning/step.js';
import { floatStudent } from '../recovery/float-student.js';
import { normalized } from '../recovery/normalize.js';
import { traceShapes } from '../runtime/trace.js';
import type { PruneReport, RecoverySummary } from '../report/report.js';
import { parseOptions, pruneOptionsSchema, type PruneOptions } from './options.js';
import { prunedRows } from './pruned-rows.js';
import { normScalesFor } from './norm-scales.js';
import { cutOfShrunk, learnShrinking, planShrinking } from './prune-shrinking.js';
import { DEFAULT_SPARSITY, pruneWeights } from './prune-weights.js';
import { runCourse, type Course } from './pruning-course.js';
import { budgetFor, budgetOf, dropOf, refuseUnmet, SLACK, type Limits } from './pruning-limits.js';
import {
  openPruningStudy,
  refuseBlindLimit,
  type LearningOptions,
  type PruningRun,
  type PruningStudy,
} from './pruning-study.js';
import { learnFromOriginal } from './recovery.js';
import { startRun } from './run-info.js';
import { finishedReport, logged, openRun } from './run-state.js';
import { refuseFixedBatch } from './training-setup.js';
import { openWorkspace, type Workspace } from './workspace.js';
import { writeMeasured, type WrittenModel } from './written-model.js';

/** Options of `pruneModel`: `data` and `output` are needed, everything else has a default. */
export type PruneInput = Pick<PruneOptions, 'data' | 'output'> & Partial<PruneOptions>;

/** Updates when neither updates nor epochs nor a time are given. */
const DEFAULT_STEPS = 1000;
/** Share of the learning that a cut is followed by before it is judged. */
const BETWEEN_CUTS = 0.1;
/** Evaluations on VAL in the course of the learning. */
const EVALUATIONS = 8;

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
  const clock = startRun();
  const settings = parseOptions(pruneOptionsSchema, options);
  const { signal } = options;
  const { force } = settings;
  const given = [input, settings.data, settings.test, settings.preprocessFile].filter(
    (file) => typeof file === 'string',
  );
  // The output of a finished run is no obstacle to resuming it.
  if (!settings.resume) await assertWritableOutput(settings.output, { force, inputs: given });
  const workspace = await clock.stage('open', () =>
    openWorkspace(input, settings, { signal, onProgress: options.onProgress }),
  );
  const warnings = [...workspace.notes];
  const rules = { force, inputs: [...given, ...workspace.opened.files] };
  let written: WrittenModel | undefined;
  let study: PruningStudy | undefined;
  try {
    const run = await openRun('prune', workspace, settings, { signal });
    const finished = await finishedReport(run, 'prune', settings.output);
    if (finished) return { model: (await openModel(settings.output, { signal })).model, report: finished };
    const control = logged({ signal, onProgress: options.onProgress }, run);
    await assertWritableOutput(settings.output, rules);
    const method = methodOf(settings);
    const opened = (study = await clock.stage('prepare', () => openPruningStudy(workspace, settings, control)));
    warnings.push(...opened.warnings);
    refuseBlindLimit(settings, workspace, opened);
    const learning = learningOf(workspace, opened.original.model, settings, warnings);
    const pruning = { workspace, study: opened, settings, learning, clock, control, run };
    const { model, limits, ...found } = await pruned(pruning, method, warnings);
    refuseUnmet(limits, settings);

    const made = (written = await writeMeasured(workspace, model, settings, rules, clock, control));
    const { original, before, after } = made;
    warnings.push(...made.warnings);
    await made.publish();
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
          temperature: settings.temperature,
          hintWeight: settings.hintWeight,
        }),
        ...(learning && settings.augment.length > 0 && { augment: settings.augment }),
      },
      ...limits,
      measure: workspace.scores === undefined ? 'relative-error' : 'kl',
      original: opened.quality,
      ...{ before, after },
      ...found.rows,
    };
    await run?.finish(report, settings.output);
    return { model, report };
  } finally {
    await study?.close();
    await workspace.close();
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
      return withoutWeights(pruning, method);
  }
}

/** Cuts, and learns afterwards. */
async function withoutUnits(pruning: PruningRun, method: StructuredMethod, warnings: string[]): Promise<Pruned> {
  const { workspace, study, settings, learning, clock, control, run } = pruning;
  const normScales =
    method.score === 'bn-scale'
      ? await clock.stage('prepare', () => normScalesFor(workspace, study, settings, warnings))
      : undefined;
  const course = await runCourse(
    {
      ...{ workspace, study, method, normScales, settings, clock, run },
      // Without a limit on the drop nothing is decided between cuts, and closed form serves as well.
      learn: learning && settings.maxDrop !== undefined ? (state) => learnBetween(pruning, state, learning) : undefined,
    },
    control,
  );
  const learned =
    learning && course.steps.some(({ accepted }) => accepted)
      ? await clock.stage('learn', () => learn(pruning, course.state, learning, true))
      : undefined;
  return cutDown(pruning, course, learned?.state ?? course.state.model, learned?.summary, {
    score: method.score,
    ...(settings.order !== 'lowest' && { order: settings.order }),
    stages: settings.stages,
  });
}

/** Learns, and cuts afterwards. */
async function withoutShrunk(pruning: PruningRun, method: ShrinkingMethod): Promise<Pruned> {
  const { workspace, study, settings, learning, clock, control, run } = pruning;
  refuseFixedBatch(workspace);
  const plan = await planShrinking(pruning, method);
  refuseUnmet({ budget: budgetFor(settings, plan.left) }, settings);
  const learned = await clock.stage('learn', () => learnShrinking(pruning, learning!, method, plan));
  const cut = cutOfShrunk(method, settings);
  const course = await runCourse(
    { workspace, study, ...cut, start: learned.state, learn: undefined, clock, run },
    control,
  );
  return cutDown(pruning, course, course.state.model, learned.summary, { stages: cut.settings.stages });
}

async function cutDown(
  { workspace, study, settings, clock }: PruningRun,
  course: Course,
  model: ModelProto,
  recovery: RecoverySummary | undefined,
  shown: Pruned['shown'],
): Promise<Pruned> {
  const { engine, feedsFor, fixedBatch } = workspace;
  const dependencies = await dependenciesOf(engine, study.original.model, feedsFor, fixedBatch);
  return {
    model,
    limits: {
      ...(await budgetOf(workspace, study, settings, course.cost, model)),
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

async function withoutWeights(pruning: PruningRun, method: WeightMethod): Promise<Pruned> {
  const { study, settings, clock } = pruning;
  const requested = settings.sparsity ?? DEFAULT_SPARSITY;
  const { model, steps, summary, sparsity } = await pruneWeights(pruning, method);
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

/** How long is learned; undefined for no time at all. */
function learningOf(
  workspace: Workspace,
  model: ModelProto,
  settings: PruneOptions,
  warnings: string[],
): LearningOptions | undefined {
  const { fixedBatch, working } = workspace;
  const { epochs, steps, maxTime, temperature, hintWeight } = settings;
  const asked = epochs !== undefined || steps !== undefined || maxTime !== undefined;
  if (steps === 0) return undefined;
  // Before the cuts, which take minutes.
  if (asked) refuseFixedBatch(workspace);
  else if (fixedBatch !== undefined) {
    warnings.push(
      `The model takes batches of ${String(fixedBatch)} only and does not learn after the cuts: export it with a free batch dimension for that.`,
    );
    return undefined;
  }
  const batchSize = Math.min(settings.batchSize, working.train.size);
  const perEpoch = Math.floor(working.train.size / batchSize);
  const limits = [
    ...(steps === undefined ? [] : [steps]),
    ...(epochs === undefined ? [] : [epochs * perEpoch]),
    ...(asked ? [] : [DEFAULT_STEPS]),
  ];
  return {
    ...(limits.length > 0 && { steps: Math.min(...limits) }),
    ...(maxTime !== undefined && { seconds: maxTime }),
    ...{ evaluations: EVALUATIONS, batchSize, learningRate: settings.lr ?? suitableRate(model) },
    ...{ temperature, hintWeight },
  };
}

/** Convolutions learn behind a normalization, which bears large steps. */
function suitableRate(model: ModelProto): number {
  let [convolutions, others] = [0, 0];
  for (const { op, params } of findLayers(new Graph(model))) {
    if (op === 'Conv') convolutions += params;
    else others += params;
  }
  return convolutions > others ? 3e-2 : 1e-3;
}

/** A short learning, judged at its end alone. */
async function learnBetween(
  pruning: PruningRun,
  pruned: PruningState,
  options: LearningOptions,
): Promise<{ model: ModelProto; updates: number }> {
  const { steps, seconds } = options;
  const short: LearningOptions = {
    ...options,
    evaluations: 1,
    ...(steps !== undefined && { steps: Math.max(1, Math.round(BETWEEN_CUTS * steps)) }),
    ...(seconds !== undefined && { seconds: BETWEEN_CUTS * seconds }),
  };
  const { state, summary } = await learn(pruning, pruned, short, false);
  return { model: state, updates: summary.steps };
}

/** @param kept whether the run directory keeps the course */
async function learn(
  { workspace, study, settings, control, run }: PruningRun,
  pruned: PruningState,
  options: LearningOptions,
  kept: boolean,
): Promise<{ state: ModelProto; summary: RecoverySummary }> {
  const { engine, feedsFor, batch } = workspace;
  const { calib, original } = study;
  const { model } = pruned;
  const student = await normalized(
    {
      ...{ engine, model, shapes: await traceShapes(engine, model, feedsFor(1)), samples: calib.size },
      batches: () => batch(calib),
    },
    control,
  );
  const learning = {
    teacher: original.model,
    student: floatStudent(student, 'updated'),
    taught: sharedPlaces(cutModel(original, pruned)),
    start: model,
    build: (state: ModelProto) => state,
    ...{ options, kept },
  };
  return learnFromOriginal(workspace, learning, settings, control, run?.cache);
}
