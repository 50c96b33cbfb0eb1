/** One candidate of a `compress` run made to the end: it learns, is rounded, learns again, and is held against the limits. */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { ModelProto } from 'onnx-buf';
import { throwIfAborted } from '../errors.js';
import { modelByteLength } from '../onnx/write.js';
import type { Candidate } from '../pipeline/candidates.js';
import type { Figures } from '../pipeline/limits.js';
import { shareBeforeRounding } from '../pipeline/recipes.js';
import { sharedPlaces } from '../pruning/places.js';
import { cutModel } from '../pruning/step.js';
import type { DivergencePoint } from '../quantization/divergence-model.js';
import type { DivergenceRecord } from '../quantization/measure-divergence.js';
import type { QuantizationOutcome } from '../quantization/method.js';
import { findMethod } from '../quantization/registry.js';
import type { Quality } from '../recovery/validate.js';
import type { CompressionStage, RecoverySummary, Verification } from '../report/report.js';
import type { MachineCache } from '../runtime/machine-cache.js';
import { budgetOf, meetBudget } from './bit-budget.js';
import type { Rung } from './compress-ladder.js';
import { dropFrom, quantizeSettings, timeRatioOf, type CompressRun } from './compress-run.js';
import type { ExecutionChoice } from './execution.js';
import { learnAfterCuts } from './pruned-learning.js';
import type { LearningOptions } from './pruning-study.js';
import { prepareStudy, type PreparedStudy } from './quantization-study.js';
import { openQuantizer, verifyOrFallBack } from './quantizing.js';
import { EVALUATIONS, recoverOutcome, type RecoverySettings } from './recovery.js';

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

/** @param number of the try, from 1: each has a folder of its own in the run directory */
export async function makeCandidate(
  run: CompressRun,
  candidate: Candidate,
  rung: Rung,
  number: number,
): Promise<Attempt> {
  const { learning, recipe, clock, study } = run;
  const stages: CompressionStage[] = [];
  const [before, after] = splitLearning(learning, shareBeforeRounding(recipe, rung.index > 0));
  let { model } = rung.state;
  let quality = study.quality;
  if (rung.index > 0) {
    quality = await clock.stage('evaluate on VAL', () => study.qualityOf(model));
    stages.push({ name: 'cut', quality, bytes: modelByteLength(model) });
  }
  let learned: RecoverySummary | undefined;
  if (before) {
    const settings = await settingsIn(run, number, 'learning');
    const options = { ...before, hintWeight: recipe.hints ? before.hintWeight : 0 };
    const result = await clock.stage('learn', () => learnAfterCuts({ ...run, settings }, rung.state, options, true));
    ({ state: model, summary: learned } = result);
    quality = learned.after;
    stages.push({ name: 'learned', quality, bytes: modelByteLength(model), updates: learned.steps });
  }
  if (recipe.quantization === undefined) {
    return { candidate, rung, model, stages, learning: learned, figures: await figuresOf(run, model, quality) };
  }
  const rounded = await round(run, candidate, { rung, model, number, options: after, stages });
  quality = stages.at(-1)!.quality;
  const figures = await figuresOf(run, rounded.model, quality);
  return { ...{ candidate, rung, model: rounded.model, stages, learning: learned, figures }, ...rounded.parts };
}

/** The learning before the rounding and behind it. */
export function splitLearning(
  learning: LearningOptions | undefined,
  share: number,
): [before: LearningOptions | undefined, after: LearningOptions | undefined] {
  if (!learning) return [undefined, undefined];
  const { steps, seconds, ...rest } = learning;
  const first = steps === undefined ? undefined : Math.round(share * steps);
  const part = (updates: number | undefined, time: number): LearningOptions | undefined =>
    updates === 0 || time === 0
      ? undefined
      : {
          ...rest,
          ...(updates !== undefined && { steps: updates }),
          ...(seconds !== undefined && { seconds: time * seconds }),
        };
  return [part(first, share), part(first === undefined ? undefined : steps! - first, 1 - share)];
}

interface Rounding {
  readonly rung: Rung;
  /** What is rounded. */
  readonly model: ModelProto;
  readonly number: number;
  readonly options: LearningOptions | undefined;
  /** Gets what is done. */
  readonly stages: CompressionStage[];
}

async function round(
  run: CompressRun,
  candidate: Candidate,
  { rung, model, number, options, stages }: Rounding,
): Promise<{ model: ModelProto; parts: Pick<Attempt, 'recovery' | 'rounded'> }> {
  const { workspace, study: pruning, settings, limits, clock, control, warnings } = run;
  const cache = run.run?.cache;
  const rounding = quantizeSettings(run);
  const method = findMethod(rounding.method)!;
  const study = await clock.stage('prepare', () => prepareStudy(workspace, control, model));
  warnings.push(...study.warnings);
  const divergences = await divergencesIn(cache, `divergences of try ${String(number)}`);
  const warn = (message: string): unknown => warnings.push(message);
  const { execution, prepared } = await openQuantizer(
    { ...{ workspace, study, method, settings: rounding, clock, cache, divergences }, warn },
    control,
  );
  const wanted = budgetOf(
    {
      ...(limits.bytes === undefined ? { bits: candidate.bits } : { maxSize: limits.bytes }),
      minBits: rounding.minBits,
    },
    study,
    method,
  );
  const { outcome } = await clock.stage('quantize', () => meetBudget(prepared, execution, wanted, true));
  const chosen = await clock.stage('choose execution', () => execution.choose(outcome, control));
  throwIfAborted(control.signal);
  const measured = (one: ModelProto): Promise<Quality> => clock.stage('evaluate on VAL', () => pruning.qualityOf(one));
  const file = chosen.build(outcome);
  stages.push({ name: 'quantized', quality: await measured(file), bytes: modelByteLength(file) });
  const recovered = options && (await clock.stage('recover', () => recoverRounded(options)));
  const final = recovered?.state ?? outcome;
  const { choice, ...made } = await clock.stage('verify', () =>
    verifyOrFallBack(workspace, study, final, chosen, settings.execution === 'auto' ? execution.float : undefined),
  );
  warnings.push(...choice.warnings);
  if (recovered) {
    const updates = recovered.summary.steps;
    // Where int8 kernels computed something else it is another file than the one that learned.
    const quality = choice.name === chosen.name ? recovered.summary.after : await measured(made.model);
    stages.push({ name: 'recovered', quality, bytes: modelByteLength(made.model), updates });
  }
  return {
    model: made.model,
    parts: {
      recovery: recovered?.summary,
      rounded: { ...{ study, choice, verification: made.verification }, outcome: final },
    },
  };

  /** The teacher is the original, whatever was cut. */
  async function recoverRounded(learning: LearningOptions): ReturnType<typeof recoverOutcome> {
    const { original } = pruning;
    const recovery = {
      ...{ workspace, study, outcome, choice: chosen },
      options: { ...learning, evaluations: EVALUATIONS, learningRate: settings.recoverLr, hintWeight: 0 },
      teacher: { model: original.model, taught: sharedPlaces(cutModel(original, rung.state)) },
    };
    return recoverOutcome(recovery, await settingsIn(run, number, 'recovery'), control, cache);
  }
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
