/** What `compress` plans from: models that could be made, measured before anything learns, and which of them to make. */
import { z } from 'zod';
import { firstSamples } from '../../data/subset.js';
import { FlowCompressError } from '../../errors.js';
import { modelByteLength } from '../../onnx/write.js';
import { fitting, goesOn, isSizeOpen, rungBetween, type Candidate } from '../../pipeline/candidates.js';
import { LEAST_STEP, narrowing, RUNGS, shareByRule } from '../../pipeline/ladder.js';
import { jointCost } from '../../pipeline/joint.js';
import { cutOf, quantizerOf } from '../../pipeline/recipes.js';
import { findMethod } from '../../quantization/registry.js';
import type { Quality } from '../../recovery/validate.js';
import { qualitySchema } from '../../report/report.js';
import { averageBits, budgetOf, meetBudget } from '../quantize/bit-budget.js';
import { firstRung, nextRung, startOf, type Rung } from './ladder.js';
import { dropFrom, quantizeSettings, timeRatioOf, type CompressRun } from './run.js';
import { nothingToRemove } from '../prune/course.js';
import type { QuantizeOptions } from '../quantize/options.js';
import { prepareStudy } from '../quantize/study.js';
import { openQuantizer } from '../quantize/quantizing.js';

export interface MeasuredCandidate extends Candidate {
  /** On VAL. */
  readonly quality: Quality;
}

export interface CompressPlan {
  readonly rungs: readonly Rung[];
  readonly candidates: readonly MeasuredCandidate[];
}

/** Average widths among which the smallest that keeps to the drop is looked for. */
const OPEN_WIDTHS = [2, 3, 4, 6];
/** Average width where neither size nor drop is limited: what hardly changes an answer. */
const HARMLESS_WIDTH = 8;
/** Samples of CALIB that widths are planned on. */
const PLANNED_ON = 256;

/** @throws FlowCompressError `infeasible` when something must go and nothing can; as cuts and quantizers do */
export async function planCompression(run: CompressRun): Promise<CompressPlan> {
  const { recipe, limits, settings } = run;
  const first = firstRung(run);
  switch (cutOf(recipe)?.how) {
    case undefined:
      return { rungs: [first], candidates: await candidatesOf(run, first) };
    case 'rule': {
      const rung = await nextRung(run, first, shareByRule(limits, settings.reduce), 1);
      if (!rung) throw nothingToRemove();
      return { rungs: [first, rung], candidates: await candidatesOf(run, rung) };
    }
    case 'joint':
      return balanced(run, first);
    case 'to-size':
      return narrowed(run, first);
    case 'ladder':
      return climbed(run, first);
  }
}

async function climbed(run: CompressRun, first: Rung): Promise<CompressPlan> {
  const { limits, learning, control } = run;
  const rungs = [first];
  let last = await candidatesOf(run, first);
  const candidates = [...last];
  for (const [i, share] of RUNGS.entries()) {
    if (!goesOn(candidates, last, limits, learning !== undefined)) break;
    control.onProgress?.({ stage: 'plan', done: i, total: RUNGS.length });
    if (share > LEAST_STEP * rungs.at(-1)!.share) continue;
    const rung = await nextRung(run, rungs.at(-1)!, share, rungs.length);
    if (!rung) break;
    rungs.push(rung);
    last = await candidatesOf(run, rung);
    candidates.push(...last);
  }
  const between = rungBetween(rungs, candidates, limits);
  if (between) {
    const rung = await nextRung(run, between.gentler, between.share, rungs.length);
    if (rung) {
      rungs.push(rung);
      candidates.push(...(await candidatesOf(run, rung)));
    }
  }
  control.onProgress?.({ stage: 'plan', done: RUNGS.length, total: RUNGS.length });
  return { rungs, candidates };
}

/** One cut, as deep as cuts do less harm than the bits that they spare. */
async function balanced(run: CompressRun, first: Rung): Promise<CompressPlan> {
  const { name, fixedBits } = findMethod(quantizerOf(run.recipe)!)!;
  if (fixedBits !== undefined)
    throw new FlowCompressError(
      'bad-input',
      `--quantizer ${name} has one width only, so that cuts cannot be weighed against bits.`,
      { hint: 'Take another --method, or a quantizer with a width per layer.' },
    );
  const candidates = await candidatesOf(run, first);
  const rung = await nextRung(run, first, (points) => jointCost(points, candidates, run.limits.bytes!), 1);
  if (!rung) return { rungs: [first], candidates };
  return { rungs: [first, rung], candidates: [...candidates, ...(await candidatesOf(run, rung))] };
}

/**
 * The rung below the deepest one, where something is left to cut: for a model that turned out slower than was planned.
 * @returns undefined at the end of the ladder
 */
export async function climbFurther(
  run: CompressRun,
  { rungs, candidates }: CompressPlan,
): Promise<CompressPlan | undefined> {
  const last = rungs.reduce((deepest, one) => (one.share < deepest.share ? one : deepest));
  const share = RUNGS.find((one) => one <= LEAST_STEP * last.share);
  const how = cutOf(run.recipe)?.how;
  if ((how !== 'ladder' && how !== 'joint') || share === undefined) return undefined;
  const rung = await nextRung(run, last, share, rungs.length);
  if (!rung) return undefined;
  return { rungs: [...rungs, rung], candidates: [...candidates, ...(await candidatesOf(run, rung))] };
}

/** Narrower and narrower until the limits hold that can be told before anything learns: the widest such network, but for a step. */
async function narrowed(run: CompressRun, first: Rung): Promise<CompressPlan> {
  const { limits, control } = run;
  const rungs = [first];
  for (;;) {
    const last = rungs.at(-1)!;
    const candidates = await candidatesOf(run, last);
    if (fitting(candidates, limits).length > 0) return { rungs, candidates };
    control.onProgress?.({ stage: 'plan', done: Math.min(rungs.length - 1, RUNGS.length), total: RUNGS.length });
    const [{ bytes }] = candidates as [MeasuredCandidate];
    const rung = await nextRung(
      run,
      last,
      last.share * narrowing(limits.bytes === undefined ? 1 : limits.bytes / bytes),
      rungs.length,
    );
    if (!rung) return { rungs, candidates };
    rungs.push(rung);
  }
}

/** Whether a candidate keeps to the limits as far as they can be told before it learns. */
export function fits({ limits }: CompressRun, candidate: MeasuredCandidate): boolean {
  return fitting([candidate], limits).length > 0;
}

const candidateSchema = z.array(
  z.object({
    ...{ rung: z.number(), bits: z.number(), bytes: z.number(), timeRatio: z.number().optional() },
    ...{ divergence: z.number(), drop: z.number(), quality: qualitySchema },
  }),
);

async function candidatesOf(run: CompressRun, found: Rung): Promise<MeasuredCandidate[]> {
  const rung = startOf(run, found);
  const key = `candidates ${String(rung.index)}`;
  const known = await run.run?.cache.read(key);
  if (known !== undefined)
    return candidateSchema.parse(JSON.parse(known)).map((one) => ({ ...one, timeRatio: one.timeRatio }));
  const measured = quantizerOf(run.recipe) === undefined ? [await inFloat(run, rung)] : await rounded(run, rung);
  await run.run?.cache.write(key, JSON.stringify(measured));
  return measured;
}

async function inFloat(run: CompressRun, rung: Rung): Promise<MeasuredCandidate> {
  const { model } = rung.state;
  return {
    ...{ rung: rung.index, bits: 32, bytes: modelByteLength(model) },
    timeRatio: await run.clock.stage('time candidates', () => timeRatioOf(run, model)),
    ...(await judged(run, () => run.study.qualityOf(model))),
  };
}

async function rounded(run: CompressRun, rung: Rung): Promise<MeasuredCandidate[]> {
  const { workspace, limits, clock, control } = run;
  const settings = quantizeSettings(run);
  const method = findMethod(settings.method)!;
  const { working } = workspace;
  const few = { ...workspace, working: { ...working, calib: firstSamples(working.calib, PLANNED_ON) } };
  const study = await clock.stage('prepare', () => prepareStudy(few, control, rung.state.model));
  const { execution, prepared } = await openQuantizer(
    { ...{ workspace: few, study, method, settings, clock, cache: run.run?.cache }, warn: () => undefined },
    control,
  );
  const budgets = budgetsOf(run, rung, method.fixedBits !== undefined);
  const found: MeasuredCandidate[] = [];
  let timeRatio: number | undefined;
  for (const budget of budgets) {
    const wanted = budgetOf({ minBits: settings.minBits, ...budget }, study, method);
    const { outcome } = await clock.stage('quantize', () => meetBudget(prepared, execution, wanted, true));
    // The time hardly depends on the bits.
    timeRatio ??= await clock.stage('time candidates', async () => {
      if (limits.timeRatio === undefined) return undefined;
      const choice = await execution.choose(outcome, control);
      return timeRatioOf(run, choice.build(outcome));
    });
    const file = execution.float!.build(outcome);
    found.push({
      ...{ rung: rung.index, bits: averageBits(outcome), bytes: execution.largestFile(outcome), timeRatio },
      ...(await judged(run, () => run.study.qualityOf(file))),
    });
  }
  return found;
}

/** What a rung is rounded to before anything is chosen. */
function budgetsOf(
  { limits, recipe }: CompressRun,
  { index }: Rung,
  isFixed: boolean,
): readonly Pick<QuantizeOptions, 'bits' | 'maxSize'>[] {
  const widths = (list: readonly number[]): { bits: number }[] => list.map((bits) => ({ bits }));
  if (limits.bytes === undefined || isFixed) return widths(isSizeOpen(limits) ? OPEN_WIDTHS : [HARMLESS_WIDTH]);
  const exact = { maxSize: limits.bytes };
  return cutOf(recipe)?.how === 'joint' && index === 0 ? [exact, ...widths([...OPEN_WIDTHS, HARMLESS_WIDTH])] : [exact];
}

async function judged(
  run: CompressRun,
  measure: () => Promise<Quality>,
): Promise<Pick<MeasuredCandidate, 'divergence' | 'drop' | 'quality'>> {
  const quality = await run.clock.stage('evaluate on VAL', measure);
  return { quality, divergence: quality.divergence, drop: dropFrom(run, quality) };
}
