/** `prune` with a method that pulls filters to 0 while the whole model learns: what is planned before, and the learning. */
import type { ModelProto } from 'onnx-buf';
import { CUT_OF_SHRUNK, type ShrinkingMethod, type StructuredMethod } from '../../pruning/methods.js';
import { shrinkingStudent, firstState } from '../../pruning/shrinking.js';
import { dependenciesOf, groupKey, plannedChoice } from '../../pruning/step.js';
import { floatStudent } from '../../recovery/float-student.js';
import { normalized } from '../../recovery/normalize.js';
import type { RecoverySummary } from '../../report/report.js';
import type { PruneOptions } from './options.js';
import { nothingToRemove, stepRequestOf, type CourseRequest } from './course.js';
import { costIn, type PruningRun } from './study.js';
import { learnFromOriginal } from '../recover/recovery.js';

/** What is to go once the model has learned: known before, as every group gives the same share. */
export interface ShrinkPlan {
  /** Units that go, by `groupKey`. */
  readonly going: ReadonlyMap<string, number>;
  /** Share of the cost that the cut leaves. */
  readonly left: number;
}

/** Times in the learning that filters are zeroed at least. */
const LEAST_TIMES = 10;

/** What `runCourse` is told of the one cut behind the learning. */
export function cutOfShrunk(
  method: ShrinkingMethod,
  settings: PruneOptions,
): Pick<CourseRequest, 'method' | 'settings'> {
  const cut: StructuredMethod = { ...CUT_OF_SHRUNK, name: method.name, summary: method.summary };
  return { method: cut, settings: { ...settings, cuts: 1, stages: 'filters' } };
}

/** @throws FlowCompressError `infeasible` when nothing could be removed */
export async function planShrinking(pruning: PruningRun, method: ShrinkingMethod): Promise<ShrinkPlan> {
  const { workspace, study, settings, clock, run, control } = pruning;
  const course = { workspace, study, clock, run, learn: undefined, ...cutOfShrunk(method, settings) };
  const costOf = costIn(settings.of);
  const goal = (1 - (settings.reduce ?? 0.5)) * costOf(study.cost);
  const request = await stepRequestOf(course, study.original, { goal, allowed: { filters: true, layers: false } });
  const planned = await plannedChoice(request, control);
  if (!planned || planned.choice.widths.size === 0) throw nothingToRemove();
  const { groups } = planned.dependencies;
  const going = [...planned.choice.widths].map(
    ([place, width]) => [groupKey(groups[place]!), groups[place]!.units.length - width] as const,
  );
  return { going: new Map(going), left: costOf(planned.cost) / costOf(study.cost) };
}

/**
 * Lets the whole model learn from the original while its least filters are pulled to 0. Errors as `learnFromOriginal`.
 * @returns the model in which they are 0, of the structure of the original
 */
export async function learnShrinking(
  pruning: PruningRun,
  options: NonNullable<PruningRun['learning']>,
  method: ShrinkingMethod,
  { going }: ShrinkPlan,
): Promise<{ state: ModelProto; summary: RecoverySummary }> {
  const { workspace, study, settings, control, run } = pruning;
  const { engine, feedsFor, fixedBatch, batch, working } = workspace;
  const { original, calib } = study;
  const model = await normalized(
    { engine, model: original.model, shapes: original.shapes, samples: calib.size, batches: () => batch(calib) },
    control,
  );
  const whole = floatStudent(model, 'updated');
  const dependencies = await dependenciesOf(engine, firstState(whole), feedsFor, fixedBatch);
  const { steps = Infinity, batchSize } = options;
  const student = shrinkingStudent({
    ...{ method, model, student: whole, dependencies, seed: settings.seed },
    going: new Map(
      dependencies.groups.flatMap((group) => {
        const count = going.get(groupKey(group));
        return count === undefined ? [] : [[group.index, count] as const];
      }),
    ),
    // After every epoch (He et al. 2018), or where there are few.
    interval: Math.max(1, Math.min(Math.floor(working.train.size / batchSize), Math.ceil(steps / LEAST_TIMES))),
  });
  const learning = {
    ...{ teacher: original.model, student, start: firstState(student), options, kept: true },
    build: (state: ModelProto) => state,
  };
  return learnFromOriginal(workspace, learning, settings, control, run?.cache);
}
