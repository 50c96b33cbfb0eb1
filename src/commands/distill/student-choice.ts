/** `distill --student auto`: limits first, then short trainings of fewer and fewer candidates; the best one is trained in full. */
import { z } from 'zod';
import {
  mostCapable,
  probeRounds,
  ranked,
  worstExcess,
  type Excess,
  type Limits,
} from '../../distillation/selection.js';
import { FlowCompressError } from '../../errors.js';
import type { GivenModel } from '../../node/model-input.js';
import type { RunDirectory } from '../../node/run-dir.js';
import { toBytes } from '../../onnx/to-bytes.js';
import type { RunControl } from '../../progress.js';
import { formatBytes, significant } from '../../report/format.js';
import { candidateRoundSchema, type CandidateRound, type ProposedCandidate } from '../../report/report.js';
import { diffusionOf } from './task.js';
import type { DistillOptions } from './options.js';
import type { RunClock } from '../run-info.js';
import { openRun } from '../run-state.js';
import { studentCandidates, timedCandidates, type StudentCandidate } from './student-candidates.js';
import { openTeacherModel } from './teacher-model.js';
import { probeStudent, studyTeacher } from './student-probe.js';
import type { Trainee } from '../train/trainee.js';
import { refuseFixedBatch, trainerOptionsOf } from '../train/setup.js';
import { openWorkspace, type Workspace } from '../workspace.js';

/** The name of a student that stands for a choice. */
export const AUTO = 'auto';

export interface StudentChoice {
  readonly student: Trainee;
  /** For the report. */
  readonly candidates: ProposedCandidate[];
  /** The run directory, whose identity hangs on the teacher. */
  readonly run: RunDirectory | undefined;
  readonly notes: readonly string[];
}

/**
 * @param files what the run hangs on beside teacher and data
 * @throws FlowCompressError `infeasible` naming the candidate that comes nearest to the limits; `bad-input` for options that shape a
 *   named architecture; `unsupported` where nothing can be proposed; what trainings throw
 */
export async function chooseStudent(
  teacher: GivenModel,
  settings: DistillOptions,
  clock: RunClock,
  files: Readonly<Record<string, string | Uint8Array>>,
  control: RunControl,
): Promise<StudentChoice> {
  refuseShape(settings);
  const home = await clock.stage('open', () =>
    openWorkspace(teacher.model, settings, control, {
      ...{ name: teacher.name, readTargets: true, diffusion: diffusionOf(settings) },
    }),
  );
  try {
    refuseFixedBatch(home);
    const run = await openRun('distill', home, settings, control, files);
    const scores = await openScores(run);
    const opened = await clock.stage('prepare', () => openTeacherModel(home, teacher, settings, control));
    const all = await clock.stage('choose student', () => studentCandidates(home, settings.seed, control));
    const { fitting, refused } = await clock.stage('choose student', () =>
      withinLimits(home, all, limitsOf(settings), scores, control),
    );
    const whole = lengthOf(settings, home);
    const rounds = probeRounds(fitting.length, whole.amount);
    let left = mostCapable(fitting, rounds[0]?.candidates ?? 1);
    const tried = new Set(left);
    const known =
      rounds.length > 0 ? await clock.stage('choose student', () => studyTeacher(home, opened, control)) : undefined;
    for (const [index, { candidates, amount }] of rounds.entries()) {
      const scored: (StudentCandidate & CandidateRound)[] = [];
      for (const [i, candidate] of left.slice(0, candidates).entries()) {
        const label = `try ${candidate.name} (${String(i + 1)} of ${String(candidates)}, round ${String(index + 1)} of ${String(rounds.length)})`;
        const shown =
          scores.rounds(candidate.name)[index] ??
          (await clock.stage('choose student', () =>
            probeStudent(
              {
                home,
                opened,
                known: known!,
                candidate,
                clock,
                cache: run?.cache,
                settings: { ...settings, ...whole.limit(amount) },
              },
              label,
              control,
            ),
          ));
        await scores.keep(candidate.name, index, shown);
        scored.push({ ...candidate, ...shown });
      }
      left = ranked(scored).map(({ name }) => left.find((one) => one.name === name)!);
      const next = rounds[index + 1]?.candidates ?? 1;
      left = left.slice(0, next);
    }
    const [chosen] = left as [StudentCandidate];
    return {
      student: { input: chosen.model, name: chosen.name, isNew: chosen.isNew },
      candidates: all.map((candidate): ProposedCandidate => {
        const fits = fitting.find(({ name }) => name === candidate.name);
        const { bytes, macs, ms } = (fits ?? candidate).cost;
        const reason = refused.get(candidate.name) ?? (fits && !tried.has(fits) ? untried(rounds.length) : undefined);
        return {
          ...{ name: candidate.name, bytes },
          ...(macs !== undefined && { macs: Math.round(macs) }),
          ...((ms ?? scores.ms(candidate.name)) !== undefined && { ms: ms ?? scores.ms(candidate.name)! }),
          ...(reason !== undefined && { refused: reason }),
          rounds: scores.rounds(candidate.name),
          chosen: candidate.name === chosen.name,
        };
      }),
      run,
      notes: [
        ...(settings.maxLatency === undefined
          ? []
          : ['Times on this machine decided which students are fast enough: another run may choose otherwise.']),
        ...(rounds.length === 0 && fitting.length > 1
          ? ['The training is too short to try students: the largest that fits was taken.']
          : []),
      ],
    };
  } finally {
    await home.close();
  }
}

function untried(rounds: number): string {
  return rounds === 0 ? 'not tried: too few steps' : 'not tried: larger ones fit';
}

/** These belong to an architecture that is named. */
function refuseShape({ width, depth, patchSize, dropout, shortcut }: DistillOptions): void {
  const given = Object.entries({ width, depth, patchSize, dropout, shortcut }).find(([, value]) => value !== undefined);
  if (!given) return;
  throw new FlowCompressError(
    'bad-input',
    `${given[0]} belongs to a student that is named, not to one that is chosen.`,
    {
      hint: 'Leave it out, or name the architecture as the student.',
    },
  );
}

function limitsOf({ maxSize, maxMacs, maxLatency }: DistillOptions): Limits {
  return { bytes: maxSize, macs: maxMacs, ms: maxLatency };
}

/** Those that are smaller than the teacher and within the limits, timed; why the others are refused. */
async function withinLimits(
  home: Workspace,
  all: readonly StudentCandidate[],
  limits: Limits,
  scores: Scores,
  control: RunControl,
): Promise<{ fitting: StudentCandidate[]; refused: Map<string, string> }> {
  const refused = new Map<string, string>();
  const excesses = new Map<StudentCandidate, Excess>();
  const keep = (candidates: readonly StudentCandidate[]): StudentCandidate[] =>
    candidates.filter((candidate) => {
      const excess = worstExcess(candidate.cost, limits);
      if (excess) {
        excesses.set(candidate, excess);
        refused.set(candidate.name, excessText(candidate, excess, limits));
      }
      return !excess;
    });
  const whole = toBytes(home.opened.model).length;
  const smaller = all.filter(({ name, cost }) => {
    if (cost.bytes < whole) return true;
    refused.set(name, 'no smaller than the teacher');
    return false;
  });
  const light = keep(smaller);
  const times = await timesOf(home, light, scores, control);
  const timed = light.map((candidate, i) => ({ ...candidate, cost: { ...candidate.cost, ms: times[i]! } }));
  const fitting = keep(timed);
  if (fitting.length > 0) return { fitting, refused };
  const [nearest] = [...excesses].sort(([, a], [, b]) => a.ratio - b.ratio);
  throw new FlowCompressError(
    'infeasible',
    nearest
      ? `None of ${String(all.length)} students is within the limits. The nearest is ${nearest[0].name}: ${excessText(...nearest, limits)}.`
      : `None of ${String(all.length)} students is smaller than the teacher.`,
    { hint: nearest ? 'Raise the limit, or name a --student of your own.' : 'Name a --student of your own.' },
  );
}

/** Measured once for a run: the choice must not change when it goes on. */
async function timesOf(
  home: Workspace,
  candidates: readonly StudentCandidate[],
  scores: Scores,
  control: RunControl,
): Promise<number[]> {
  if (candidates.some(({ name }) => scores.ms(name) === undefined)) {
    const models = candidates.map(({ model }) => model);
    const measured = models.length > 0 ? await timedCandidates(home, models, control) : [];
    await scores.keepTimes(new Map(candidates.map(({ name }, i) => [name, measured[i]!])));
  }
  return candidates.map(({ name }) => scores.ms(name)!);
}

function excessText({ cost }: StudentCandidate, { of }: Excess, limits: Limits): string {
  const [own, limit] = [cost[of]!, limits[of]!];
  const [is, most] = [own, limit].map((value) =>
    of === 'bytes'
      ? formatBytes(value)
      : `${significant(of === 'macs' ? value / 1e6 : value, 3)}${of === 'macs' ? ' M MACs' : ' ms'}`,
  );
  return `${is!} where ${most!} are allowed`;
}

/** Updates of the whole training, or seconds where nothing else ends it, and the limit of one that is so long. */
function lengthOf(
  settings: DistillOptions,
  home: Workspace,
): { amount: number; limit: (amount: number) => Pick<DistillOptions, 'steps' | 'maxTime' | 'epochs'> } {
  const { epochs = Infinity, steps = Infinity, maxSeconds = 0 } = trainerOptionsOf(settings, home, 'loss');
  const perEpoch = Math.floor(home.working.train.size / (settings.batchSize * settings.accumulate));
  const amount = Math.min(steps, epochs * perEpoch);
  return amount < Infinity
    ? { amount, limit: (part) => ({ steps: part, maxTime: undefined, epochs: undefined }) }
    : { amount: maxSeconds, limit: (part) => ({ steps: undefined, maxTime: part, epochs: undefined }) };
}

const KEY = 'student choice';
const keptSchema = z.object({
  ms: z.record(z.string(), z.number()),
  rounds: z.record(z.string(), z.array(candidateRoundSchema)),
});

/** What is known of the candidates, remembered in the run directory. */
interface Scores {
  ms(name: string): number | undefined;
  rounds(name: string): CandidateRound[];
  keepTimes(times: ReadonlyMap<string, number>): Promise<void>;
  keep(name: string, round: number, shown: CandidateRound): Promise<void>;
}

async function openScores(run: RunDirectory | undefined): Promise<Scores> {
  const text = await run?.cache.read(KEY);
  const kept = text === undefined ? { ms: {}, rounds: {} } : keptSchema.parse(JSON.parse(text));
  const ms = new Map(Object.entries(kept.ms));
  const rounds = new Map(Object.entries(kept.rounds));
  const save = async (): Promise<void> =>
    run?.cache.write(KEY, JSON.stringify({ ms: Object.fromEntries(ms), rounds: Object.fromEntries(rounds) }));
  return {
    ms: (name) => ms.get(name),
    rounds: (name) => rounds.get(name) ?? [],
    async keepTimes(times) {
      for (const [name, time] of times) ms.set(name, time);
      await save();
    },
    async keep(name, round, shown) {
      const known = rounds.get(name) ?? [];
      if (known.length > round) return;
      rounds.set(name, [...known, shown]);
      await save();
    },
  };
}
