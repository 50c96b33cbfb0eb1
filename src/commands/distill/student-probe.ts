/** A short training of a candidate for `distill --student auto`, and how close to the teacher it comes by that. */
import type { ModelProto } from 'onnx-buf';
import { ckaMatrix } from '../../distillation/cka.js';
import { mapByAssignment } from '../../distillation/mapping.js';
import { profileDistance, showingScore, type FlowProfile } from '../../distillation/selection.js';
import type { FlowUnit } from '../../distillation/units.js';
import { toBytes } from '../../onnx/to-bytes.js';
import type { RunControl } from '../../progress.js';
import type { CandidateRound } from '../../report/report.js';
import type { MachineCache } from '../../runtime/machine-cache.js';
import { evaluateSession } from '../../runtime/metric.js';
import { gramsOf, studiedFlow, type TeacherStudy } from './classroom.js';
import type { DistillOptions } from './options.js';
import type { RunClock } from '../run-info.js';
import type { StudentCandidate } from './student-candidates.js';
import { measuredFlow, trainTaught } from './taught-training.js';
import type { OpenedTeacher } from './teacher-model.js';
import { openSession, withModel, type Workspace } from '../workspace.js';

/** What candidates are held against. */
export interface KnownTeacher {
  readonly study: TeacherStudy;
  readonly profile: FlowProfile;
  /** Share of right answers on VAL; undefined without labels. */
  readonly quality: number | undefined;
}

export async function studyTeacher(home: Workspace, opened: OpenedTeacher, control: RunControl): Promise<KnownTeacher> {
  const { maps, flow } = await studiedFlow(home, opened, control);
  const grams = await gramsOf(home, opened.model, opened.side, control);
  const quality = isLabelled(home) ? await qualityOf(home, opened.opened.model, opened) : undefined;
  return { study: { maps, flow, grams }, profile: profileOf(opened.side.units, flow), quality };
}

/** Whether labels say which answers are right. */
function isLabelled({ working, classes }: Workspace): boolean {
  return working.val.labels !== undefined && classes !== undefined;
}

/** Of the units whose flow is known. */
function profileOf(units: readonly FlowUnit[], flows: readonly (number | undefined)[]): FlowProfile {
  const known = units.flatMap(({ depth }, i) => (flows[i] === undefined ? [] : [{ depth, flow: flows[i] }]));
  return { depths: known.map(({ depth }) => depth), flows: known.map(({ flow }) => flow) };
}

/** Share of right answers on VAL; without labels share of those that are the teacher's; without classes 1 - the relative error. */
async function qualityOf(workspace: Workspace, model: ModelProto, { opened }: OpenedTeacher): Promise<number> {
  const { engine, working, batch } = workspace;
  const session = await engine.createSession(toBytes(model));
  const reference = isLabelled(workspace) ? undefined : await openSession(engine, opened);
  try {
    const { metric } = await evaluateSession(session, batch(working.val), { ...(reference && { reference }) });
    // Of outputs that are no scores: the share of the teacher's energy that the error leaves.
    return metric?.name === 'sqnrDb' ? Math.max(0, 1 - 10 ** (-metric.value / 10)) : (metric?.value ?? 0);
  } finally {
    await session.release();
    await reference?.release();
  }
}

export interface ProbeRequest {
  readonly home: Workspace;
  readonly opened: OpenedTeacher;
  readonly known: KnownTeacher;
  readonly candidate: StudentCandidate;
  readonly settings: DistillOptions;
  readonly clock: RunClock;
  readonly cache: MachineCache | undefined;
}

const UNBOOKED: RunClock['stage'] = (_, work) => work();

/** A short training, and what it shows. */
export async function probeStudent(
  { home, opened, known, candidate, settings, clock, cache }: ProbeRequest,
  stage: string,
  control: RunControl,
): Promise<CandidateRound> {
  const workspace = await withModel(home, candidate.model, candidate.name);
  const { signal } = control;
  const quiet: RunControl = {
    signal,
    onProgress: (event) => {
      if (event.stage === 'train') control.onProgress?.({ ...event, stage });
    },
  };
  const { trained } = await trainTaught(
    {
      ...{ workspace, teacher: opened, study: known.study, cache, clock: { ...clock, stage: UNBOOKED } },
      settings: { ...settings, runDir: undefined, resume: false, cacheTeacher: undefined, patience: undefined },
    },
    quiet,
  );
  const { prepared, units, changes } = await measuredFlow(workspace, trained.model, settings, { signal });
  const cka = ckaMatrix(known.study.grams, await gramsOf(workspace, prepared, { units }, { signal }));
  const mapping = mapByAssignment({ teacher: opened.side.units, student: units, cka });
  const quality = await qualityOf(workspace, trained.model, opened);
  const shown = {
    alignment: profileDistance(known.profile, profileOf(units, changes)),
    cka: mapping.reduce((sum, l, m) => sum + cka[l]![m]!, 0) / mapping.length,
    quality: Math.min(1, known.quality === undefined ? quality : quality / known.quality),
  };
  return { steps: trained.summary.steps, ...shown, score: showingScore(shown) };
}
