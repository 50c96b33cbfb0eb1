/** One candidate of a `compress` run made to the end: it learns, is rounded, learns again, and is held against the limits. */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { ModelProto } from 'onnx-buf';
import { throwIfAborted } from '../../errors.js';
import { modelByteLength } from '../../onnx/write.js';
import type { Candidate } from '../../pipeline/candidates.js';
import type { Figures } from '../../pipeline/limits.js';
import { stagesOf, type LearnStage, type Stage } from '../../pipeline/recipes.js';
import { sharedPlaces } from '../../pruning/places.js';
import { cutModel } from '../../pruning/step.js';
import type { DivergencePoint } from '../../quantization/divergence-model.js';
import type { DivergenceRecord } from '../../quantization/measure-divergence.js';
import type { QuantizationOutcome } from '../../quantization/method.js';
import { findMethod } from '../../quantization/registry.js';
import type { Quality } from '../../recovery/validate.js';
import type { CompressionStage, RecoverySummary, Verification } from '../../report/report.js';
import type { MachineCache } from '../../runtime/machine-cache.js';
import { budgetOf, meetBudget } from '../quantize/bit-budget.js';
import { startOf, type Rung } from './ladder.js';
import { dropFrom, quantizeSettings, timeRatioOf, type CompressRun } from './run.js';
import type { ExecutionChoice } from '../quantize/execution.js';
import { learnAfterCuts } from '../prune/learning.js';
import { prepareStudy, type PreparedStudy } from '../quantize/study.js';
import { openQuantizer, verifyOrFallBack } from '../quantize/quantizing.js';
import {
  EVALUATIONS,
  recoverOutcome,
  taughtAs,
  type LearningOptions,
  type RecoverySettings,
} from '../recover/recovery.js';

export interface Attempt {
  readonly candidate: Candidate;
  readonly rung: Rung;
  readonly model: ModelProto;
  readonly figures: Figures;
  /** Behind the original, in order. */
  readonly stages: readonly CompressionStage[];
  /** Of the cut model, and of the rounded one. */
  readonly learning?: RecoverySummary | undefined;
  readonly recovery?: RecoverySummary | undefined;
  /** Absent where nothing is rounded. */
  readonly rounded?: RoundedModel | undefined;
}

interface RoundedModel {
  readonly study: PreparedStudy;
  readonly outcome: QuantizationOutcome;
  readonly choice: ExecutionChoice;
  readonly verification: Verification;
}

/** What a try has come to, stage by stage. */
interface Course {
  model: ModelProto;
  quality: Quality;
  readonly stages: CompressionStage[];
  learning?: RecoverySummary;
  recovery?: RecoverySummary;
  rounding?: Rounding;
}

/** A model that was rounded; its file is made when it has learned. */
interface Rounding extends Omit<RoundedModel, 'verification'> {
  readonly float: ExecutionChoice | undefined;
}

/** @param number of the try, from 1: each has a folder of its own in the run directory */
export async function makeCandidate(
  run: CompressRun,
  candidate: Candidate,
  found: Rung,
  number: number,
): Promise<Attempt> {
  const { learning, recipe, study } = run;
  const course: Course = { model: found.state.model, quality: study.quality, stages: [] };
  const stages = stagesOf(recipe, found.index > 0);
  const shares = stages.map((stage) => (stage.kind === 'learn' ? stage.share : 0));
  const parts = splitLearning(learning, shares);
  const rung = startOf(run, found);
  for (const [i, stage] of stages.entries()) {
    throwIfAborted(run.control.signal);
    switch (stage.kind) {
      case 'cut':
        await judge(run, course, 'cut', found.state.model);
        break;
      case 'renew':
        await judge(run, course, 'renewed', rung.state.model);
        break;
      case 'learn': {
        const part = parts[i];
        if (!part) break;
        const options = { ...part, ...taughtAs(weighedBy(run, stage), stage.teaching) };
        if (course.rounding) await learnRounded(run, course, rung, number, options);
        else await learnCut(run, course, rung, number, options);
        break;
      }
      case 'quantize':
        await roundNow(run, course, candidate, number, stage);
        break;
    }
  }
  const rounded = course.rounding && (await finished(run, course, course.rounding));
  const { model, quality, stages: passed, learning: learned, recovery } = course;
  const figures = await figuresOf(run, model, quality);
  return { ...{ candidate, rung, model, stages: passed, figures, learning: learned, recovery, rounded } };
}

/** Temperature and weight of the hints, where the teaching has one. */
function weighedBy({ settings }: CompressRun, { teaching }: LearnStage): Parameters<typeof taughtAs>[0] {
  const { temperature, hintWeight } = settings;
  return { teaching: undefined, temperature, hintWeight: teaching === 'hints' ? hintWeight : undefined };
}

async function judge(
  run: CompressRun,
  course: Course,
  name: CompressionStage['name'],
  model: ModelProto,
): Promise<void> {
  course.model = model;
  course.quality = await run.clock.stage('evaluate on VAL', () => run.study.qualityOf(model));
  course.stages.push({ name, quality: course.quality, bytes: modelByteLength(model) });
}

/** What every stage of learning gets of it all. @param shares of the stages, 0 where one does not learn; they add up to 1 */
export function splitLearning(
  learning: Omit<LearningOptions, 'teaching'> | undefined,
  shares: readonly number[],
): (Omit<LearningOptions, 'teaching'> | undefined)[] {
  let [before, given] = [0, 0];
  return shares.map((share) => {
    if (!learning || share === 0) return undefined;
    const { steps, seconds, ...rest } = learning;
    before += share;
    const upTo = steps === undefined ? undefined : Math.round(before * steps);
    const own = upTo === undefined ? undefined : upTo - given;
    given = upTo ?? 0;
    if (own === 0) return undefined;
    return {
      ...rest,
      ...(own !== undefined && { steps: own }),
      ...(seconds !== undefined && { seconds: share * seconds }),
    };
  });
}

async function learnCut(
  run: CompressRun,
  course: Course,
  rung: Rung,
  number: number,
  options: LearningOptions,
): Promise<void> {
  const settings = await settingsIn(run, number, 'learning');
  const learned = await run.clock.stage('learn', () =>
    learnAfterCuts({ ...run, settings }, { ...rung.state, model: course.model }, options, true),
  );
  course.model = learned.state;
  course.quality = learned.summary.after;
  course.learning = learned.summary;
  course.stages.push({
    ...{ name: 'learned', quality: course.quality, bytes: modelByteLength(course.model) },
    updates: learned.summary.steps,
  });
}

async function roundNow(
  run: CompressRun,
  course: Course,
  candidate: Candidate,
  number: number,
  { method: name }: Extract<Stage, { kind: 'quantize' }>,
): Promise<void> {
  const { workspace, settings, limits, clock, control, warnings } = run;
  const cache = run.run?.cache;
  const rounding = quantizeSettings(run);
  const method = findMethod(name)!;
  const study = await clock.stage('prepare', () => prepareStudy(workspace, control, course.model));
  warnings.push(...study.warnings);
  const divergences = await divergencesIn(cache, `divergences of try ${String(number)}`);
  const warn = (message: string): unknown => warnings.push(message);
  const { execution, prepared } = await openQuantizer(
    { ...{ workspace, study, method, settings: rounding, clock, cache, divergences }, warn },
    control,
  );
  const bySize = limits.bytes !== undefined && method.fixedBits === undefined;
  const wanted = budgetOf(
    { ...(bySize ? { maxSize: limits.bytes } : { bits: candidate.bits }), minBits: rounding.minBits },
    study,
    method,
  );
  const { outcome } = await clock.stage('quantize', () => meetBudget(prepared, execution, wanted, true));
  const choice = await clock.stage('choose execution', () => execution.choose(outcome, control));
  course.rounding = { study, outcome, choice, float: settings.execution === 'auto' ? execution.float : undefined };
  await judge(run, course, 'quantized', choice.build(outcome));
}

/** The teacher is the original, whatever was cut. */
async function learnRounded(
  run: CompressRun,
  course: Course,
  rung: Rung,
  number: number,
  options: LearningOptions,
): Promise<void> {
  const { workspace, settings, clock, control, study: pruning } = run;
  const { study, outcome, choice, float } = course.rounding!;
  const { original } = pruning;
  const recovery = {
    ...{ workspace, study, outcome, choice },
    options: { ...options, evaluations: EVALUATIONS, learningRate: settings.recoverLr },
    teacher: { model: original.model, taught: sharedPlaces(cutModel(original, rung.state)) },
  };
  const kept = await settingsIn(run, number, 'recovery');
  const { state, summary } = await clock.stage('recover', () =>
    recoverOutcome(recovery, kept, control, run.run?.cache),
  );
  course.rounding = { study, outcome: state, choice, float };
  course.recovery = summary;
  course.quality = summary.after;
}

/** The file of what was rounded, verified. */
async function finished(
  run: CompressRun,
  course: Course,
  { study, outcome, choice: chosen, float }: Rounding,
): Promise<RoundedModel> {
  const { workspace, clock, warnings } = run;
  const { choice, model, verification } = await clock.stage('verify', () =>
    verifyOrFallBack(workspace, study, outcome, chosen, float),
  );
  warnings.push(...choice.warnings);
  const { recovery } = course;
  course.model = model;
  if (recovery) {
    // Where int8 kernels computed something else it is another file than the one that learned.
    if (choice.name !== chosen.name)
      course.quality = await clock.stage('evaluate on VAL', () => run.study.qualityOf(model));
    course.stages.push({
      ...{ name: 'recovered', quality: course.quality, bytes: modelByteLength(model) },
      updates: recovery.steps,
    });
  }
  return { study, choice, verification, outcome };
}

async function figuresOf(run: CompressRun, model: ModelProto, quality: Quality): Promise<Figures> {
  return {
    bytes: modelByteLength(model),
    timeRatio: await run.clock.stage('time candidates', () => timeRatioOf(run, model)),
    drop: dropFrom(run, quality),
  };
}

/** With a folder of its own for what one learning keeps. */
async function settingsIn(
  { settings, run }: CompressRun,
  number: number,
  stage: 'learning' | 'recovery',
): Promise<RecoverySettings> {
  if (!run || settings.runDir === undefined) return settings;
  const runDir = join(settings.runDir, `try-${String(number)}`, stage);
  await mkdir(runDir, { recursive: true });
  return { ...settings, runDir };
}

/** Divergences of layers that one stage of a run measured: others have layers of the same names. */
async function divergencesIn(cache: MachineCache | undefined, key: string): Promise<DivergenceRecord | undefined> {
  if (!cache) return undefined;
  const text = await cache.read(key);
  const known = new Map<string, readonly DivergencePoint[]>(
    Object.entries(text === undefined ? {} : (JSON.parse(text) as Record<string, DivergencePoint[]>)),
  );
  return {
    known,
    async keep(measured) {
      for (const [layer, points] of measured)
        if (points.every(({ error, divergence }) => Number.isFinite(error + divergence))) known.set(layer, points);
      await cache.write(key, JSON.stringify(Object.fromEntries(known)));
    },
  };
}
