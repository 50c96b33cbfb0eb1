/** The cuts of a `prune` run: from goal to goal, kept or taken back by what VAL says, remembered in the run directory. */
import { join } from 'node:path';
import { z } from 'zod';
import type { ModelProto } from 'onnx-buf';
import { FlowCompressError } from '../../errors.js';
import { firstSamples } from '../../data/subset.js';
import type { RunDirectory } from '../../node/run-dir.js';
import { saveModel } from '../../node/model-file.js';
import type { RunControl } from '../../progress.js';
import type { StructuredMethod } from '../../pruning/methods.js';
import { GUARDS } from '../../pruning/sites.js';
import { pruneStep, type PruningState, type StepRequest } from '../../pruning/step.js';
import { pruningStepSchema, type PruningStep } from '../../report/report.js';
import type { Quality } from '../../recovery/validate.js';
import { layoutBlock } from '../../runtime/layout-block.js';
import { DEFAULTS } from '../options.js';
import type { PruneOptions } from './options.js';
import { cutBy, cutFields, readCut, writtenCut, type Cut } from './memory.js';
import { costIn, errorOf, worthIn, type PruningStudy } from './study.js';
import { wideRows } from '../quantize/study.js';
import type { RunClock } from '../run-info.js';
import { timeRatios } from './time-ratios.js';
import type { Workspace } from '../workspace.js';

export interface Course extends Cut {
  readonly steps: readonly PruningStep[];
}

export interface CourseRequest {
  readonly workspace: Workspace;
  readonly study: PruningStudy;
  readonly method: StructuredMethod;
  /** Of the original, for the score of normalization scales. */
  readonly normScales?: ReadonlyMap<string, Float64Array> | undefined;
  /** What is cut, where it is not the original itself but of its structure. */
  readonly start?: ModelProto | undefined;
  readonly settings: PruneOptions;
  readonly clock: RunClock;
  readonly run: RunDirectory | undefined;
  /** A short learning before a cut is judged; undefined where there is none. */
  readonly learn: ((pruned: PruningState) => Promise<{ model: ModelProto; updates: number }>) | undefined;
}

/** Cuts without a goal, each of a sixth of what is left. */
const OPEN_CUTS = 10;
const OPEN_SHARE = 1 / 6;
/** Times that a step that was refused is tried again, half as large. */
const HALVINGS = 2;
/** Cuts that a goal in milliseconds may take. */
const LATENCY_CUTS = 6;

/** @throws FlowCompressError as `pruneStep` */
export async function runCourse(request: CourseRequest, control: RunControl): Promise<Course> {
  const { study, settings } = request;
  const costOf = costIn(settings.of);
  const whole = costOf(study.cost);
  let course = (await takeUp(request)) ?? startOf(request);
  const goals = goalsFrom(settings, whole);
  let [index, halvings] = countsOf(course.steps, goals.length);
  while (index < goals.length && halvings <= HALVINGS) {
    const now = costOf(course.cost);
    const { goal, allowed } = await nextGoal(request, course, goals, index, now);
    if (goal === undefined) break;
    const wanted = now - (now - goal) / 2 ** halvings;
    const tried = await attempt(request, course, { goal: wanted, allowed }, control);
    if (!tried || isSameRefusal(course.steps.at(-1), tried.steps.at(-1)!)) break;
    course = tried;
    await remember(request, course);
    if (course.steps.at(-1)!.accepted) [index, halvings] = [index + 1, 0];
    else halvings++;
  }
  return course;
}

/** A smaller step that comes to the same widths is refused again. */
function isSameRefusal(last: PruningStep | undefined, next: PruningStep): boolean {
  return last?.accepted === false && !next.accepted && last.params === next.params && last.macs === next.macs;
}

export interface Goal {
  readonly goal: number;
  readonly allowed: { readonly filters: boolean; readonly layers: boolean };
}

/** Cuts by how much is to go: each takes the same share of what is left. */
function goalsFrom({ reduce, maxDrop, cuts, stages, of }: PruneOptions, whole: number): Goal[] {
  const phases =
    stages === 'joint'
      ? [allowedIn(stages)]
      : stages.split('-').map((stage) => ({ filters: stage === 'filters', layers: stage === 'layers' }));
  const share = reduce ?? (maxDrop === undefined ? 0.5 : undefined);
  const count =
    of === 'latency' && share !== undefined
      ? LATENCY_CUTS
      : (cuts ?? (share === undefined ? OPEN_CUTS : Math.max(phases.length, Math.ceil(Math.log(1 - share) / LARGEST))));
  const left = share === undefined ? (1 - OPEN_SHARE) ** count : 1 - share;
  return Array.from({ length: count }, (_, i) => ({
    goal: whole * left ** ((i + 1) / count),
    allowed: phases[Math.floor((i * phases.length) / count)]!,
  }));
}

/** What may go in some of the cuts at least. */
export function allowedIn(stages: PruneOptions['stages']): Goal['allowed'] {
  const has = (stage: string): boolean => stages === 'joint' || stages.includes(stage);
  return { filters: has('filters'), layers: has('layers') };
}

/** Logarithm of what one cut leaves at least. */
const LARGEST = Math.log(0.45);

/** How many goals have been met, and how often the next was refused. */
function countsOf(steps: readonly PruningStep[], goals: number): [index: number, halvings: number] {
  const met = steps.filter(({ accepted }) => accepted).length;
  const refused = steps.length - steps.findLastIndex(({ accepted }) => accepted) - 1;
  return [Math.min(met, goals), refused];
}

/** Milliseconds are no sum over layers: what multiply-accumulates have to go is told from what the last cut gave. */
async function nextGoal(
  request: CourseRequest,
  course: Course,
  goals: readonly Goal[],
  index: number,
  now: number,
): Promise<{ goal: number | undefined; allowed: Goal['allowed'] }> {
  const { settings } = request;
  const { goal, allowed } = goals[index]!;
  if (settings.of !== 'latency') return { goal, allowed };
  const left = 1 - (settings.reduce ?? 0.5);
  const ratio = index === 0 ? 1 : await latencyRatio(request.workspace, request.study, course.state.model);
  return { goal: ratio <= left ? undefined : now * (left / ratio), allowed };
}

/** Median time of a model divided by that of the original, timed in turns. */
export async function latencyRatio(
  workspace: Workspace,
  { original }: PruningStudy,
  model: ModelProto,
): Promise<number> {
  const [, ratio] = await timeRatios(workspace, [original.model, model]);
  return ratio!;
}

/** What a cut depends on beside the state and the goal. */
export interface CutRequest extends Pick<CourseRequest, 'workspace' | 'study' | 'method' | 'normScales'> {
  readonly settings: Pick<PruneOptions, 'of' | 'seed' | 'order' | 'align'>;
}

/** What a cut of a state is told. */
export async function stepRequestOf(
  { workspace, study, method, settings, normScales }: CutRequest,
  state: PruningState,
  { goal, allowed }: Pick<StepRequest, 'goal' | 'allowed'>,
): Promise<StepRequest> {
  const { engine, feedsFor, fixedBatch, batch, scores } = workspace;
  const rows = wideRows(state.shapes, fixedBatch ?? 1);
  // Who asks for smaller batches than usual has reasons.
  const wideSize = rows >= 1 && workspace.batchSize >= DEFAULTS.batchSize ? rows : undefined;
  const block = (await layoutBlock(engine)) ?? GUARDS.align;
  return {
    ...{ engine, original: study.original, state, method, allowed, goal, feedsFor, fixedBatch, scores, normScales },
    ...{ costOf: costIn(settings.of), seed: settings.seed, order: settings.order },
    ...{ divergenceOf: study.divergenceOf, qualityOf: study.qualityOf },
    guards: { ...GUARDS, align: settings.align ?? block },
    ...{ block, worthOf: worthIn(settings.of) },
    batches: (wide) => batch(study.calib, wide ? wideSize : undefined),
    gradientBatches: (samples, size) => batch(firstSamples(study.calib, samples), size),
    samples: study.calib.size,
  };
}

export function nothingToRemove(): FlowCompressError {
  return new FlowCompressError('infeasible', 'There is nothing in the model that could be removed.', {
    hint: '`flow-compress inspect MODEL --groups` shows what stays, and why; narrow layers may need a lower --align.',
  });
}

export function noFiniteCut(): FlowCompressError {
  return new FlowCompressError('infeasible', 'Every cut that was tried leaves a model that gives no finite numbers.', {
    hint: 'Ask for less, lower --align for smaller cuts, or take a method that measures what cuts do (idap).',
  });
}

/** One cut, judged on VAL; undefined when nothing is left to cut. */
async function attempt(
  request: CourseRequest,
  course: Course,
  goal: Goal,
  control: RunControl,
): Promise<Course | undefined> {
  const { study, settings, clock, learn } = request;
  const began = performance.now();
  const wanted = await stepRequestOf(request, course.state, goal);
  const step = await clock.stage('cut and fit', () => pruneStep(wanted, control));
  if (!step) {
    if (course.steps.length > 0) return undefined;
    throw nothingToRemove();
  }
  const { qualities, state } = step;
  const learned = learn ? await clock.stage('learn between cuts', () => learn(state)) : undefined;
  const recovered = learned && (await clock.stage('evaluate on VAL', () => study.qualityOf(learned.model)));
  const final = recovered ?? step.quality;
  const drop = errorOf(final).error - errorOf(study.quality).error;
  const accepted = Number.isFinite(final.divergence) && (settings.maxDrop === undefined || drop <= settings.maxDrop);
  const { params, macs } = step.cost;
  const record: PruningStep = {
    step: course.steps.length + 1,
    units: step.units,
    branches: step.layers.map(({ unit }) => unit.name),
    params,
    ...(macs !== undefined && { macs: Math.round(macs) }),
    ...finiteOnes({ ...qualities, ...(recovered && { recovered }) }),
    ...(learned && { updates: learned.updates }),
    ...{ accepted, seconds: (performance.now() - began) / 1000 },
  };
  const steps = [...course.steps, record];
  const next = cutBy(step, course);
  if (!accepted) return { ...course, steps, difference: next.difference };
  return { ...next, steps, ...(learned && { state: { ...state, model: learned.model } }) };
}

/** Of the model behind a step. */
export function lastOf({ cut, refitted, normalized, aligned, recovered }: Partial<PruningStep>): Quality | undefined {
  return recovered ?? aligned ?? normalized ?? refitted ?? cut;
}

/** What a report, or the run directory, can hold. */
function finiteOnes(qualities: Readonly<Record<string, Quality>>): Partial<Readonly<Record<string, Quality>>> {
  return Object.fromEntries(Object.entries(qualities).filter(([, { divergence }]) => Number.isFinite(divergence)));
}

function startOf({ study: { original, cost }, start }: CourseRequest): Course {
  const state = start ? { ...original, model: start } : original;
  return { state, cost, steps: [], divergences: new Map(), difference: 0 };
}

const keptSchema = z.object({ ...cutFields, steps: z.array(pruningStepSchema) });

const COURSE = 'pruning course';
const MODEL = 'cut.onnx';

async function remember({ run, settings }: CourseRequest, course: Course): Promise<void> {
  if (!run || settings.runDir === undefined) return;
  const steps = [...course.steps];
  // The model first: without the line about it, it is one of a step that is made again.
  await saveModel(course.state.model, join(settings.runDir, `${String(steps.length)}-${MODEL}`), { force: true });
  const kept: z.input<typeof keptSchema> = { ...writtenCut(course), steps };
  await run.cache.write(COURSE, JSON.stringify(kept));
}

/** The course as far as an earlier run came. */
async function takeUp({ run, settings, study, workspace }: CourseRequest): Promise<Course | undefined> {
  const text = await run?.cache.read(COURSE);
  if (text === undefined || settings.runDir === undefined) return undefined;
  const { steps, ...kept } = keptSchema.parse(JSON.parse(text));
  const file = join(settings.runDir, `${String(steps.length)}-${MODEL}`);
  return { ...(await readCut(kept, file, study, workspace)), steps };
}
