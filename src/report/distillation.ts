/** What the reports say about a distillation, independent of the medium. */
import {
  baseName,
  formatBytes,
  formatCount,
  formatMetric,
  formatMetricChange,
  formatMs,
  formatRatio,
  formatShare,
  isFraction,
  metricLabel,
  significant,
} from './format.js';
import type { CandidateRound, DistillReport, FlowPoint, ProposedCandidate } from './report.js';
import { latenciesOf } from './summary.js';

/** `resnet20.onnx learned from resnet56.onnx by fad`. */
export function learnedFrom({ student, teacher, method }: DistillReport): string {
  return `${baseName(student)} learned from ${baseName(teacher)} by ${method}`;
}

/** How much smaller and faster than the teacher, how much of its quality, how often the same answer: one or two sentences. */
export function outcomeSentence(report: DistillReport): string {
  const quality = qualityKept(report);
  const agreement = report.fidelity?.agreement;
  const rest = [
    ...(quality === undefined ? [] : [quality]),
    ...(agreement === undefined ? [] : [`gives the same class in ${percent(agreement)} of the samples`]),
  ].join(' and ');
  return `The student is ${costKept(report)} the teacher.${rest === '' ? '' : ` It ${rest}.`}`;
}

/** Ends before the name of what it is compared with. */
function costKept({ before, after }: DistillReport): string {
  const latency = firstLatencies({ before, after });
  const ratios = [
    formatRatio(before.bytes, after.bytes, 'smaller', 'larger'),
    latency && formatRatio(latency.before.medianMs, latency.after.medianMs, 'faster', 'slower'),
  ].filter((ratio) => ratio !== undefined && ratio !== 'same');
  return ratios.length === 0 ? 'as large as' : `${ratios.join(' and ')} than`;
}

/** The latencies of the smallest batch that both were timed with. */
function firstLatencies({ before, after }: Pick<DistillReport, 'before' | 'after'>) {
  const ofAfter = latenciesOf(after);
  return latenciesOf(before)
    .map((one) => ({ before: one, after: ofAfter.find(({ batch }) => batch === one.batch) }))
    .find((pair): pair is { before: typeof pair.before; after: typeof pair.before } => pair.after !== undefined);
}

/** A share where the figures are shares of samples, else the difference. */
function qualityKept({ before, after }: DistillReport): string | undefined {
  const [was, is] = [before.metric, after.metric];
  if (was === undefined || is === undefined || was.name !== is.name || was.name === 'agreement') return undefined;
  const label = metricLabel(is.name);
  if (isFraction(is.name) && was.value > 0)
    return `keeps ${formatShare(is.value / was.value)} of its ${label} (${formatMetric(is)} of ${formatMetric(was)})`;
  return `has ${formatMetric(is)} ${label} (${formatMetricChange(was, is)})`;
}

function percent(share: number): string {
  return formatMetric({ name: 'agreement', value: share });
}

/** Which layers were held against each other; columns of which nothing is known are left out. */
export function mappingTable({ mapping = [], flow }: Pick<DistillReport, 'mapping' | 'flow'>): {
  head: string[];
  rows: string[][];
} {
  const changeOf = (points: readonly FlowPoint[] | undefined, name: string): string | undefined => {
    const change = points?.find((point) => point.name === name)?.change;
    return change === undefined ? undefined : significant(change, 3);
  };
  const columns = [
    { head: 'student', cells: mapping.map(({ student }) => student) },
    { head: 'teacher', cells: mapping.map(({ teacher }) => teacher) },
    { head: 'CKA', cells: mapping.map(({ cka }) => cka?.toFixed(3)) },
    { head: 'weight', cells: mapping.map(({ weight }) => significant(weight, 3)) },
    { head: 'flow change', cells: mapping.map(({ student }) => changeOf(flow?.student, student)) },
    { head: "teacher's", cells: mapping.map(({ teacher }) => changeOf(flow?.teacher, teacher)) },
  ].filter(({ cells }) => cells.some((cell) => cell !== undefined));
  return {
    head: columns.map(({ head }) => head),
    rows: mapping.map((_, i) => columns.map(({ cells }) => cells[i] ?? '')),
  };
}

/** What the columns of the table mean, as far as it has them. */
export function mappingCaption(report: Pick<DistillReport, 'mapping' | 'flow'>): string {
  const { head } = mappingTable(report);
  return [
    'Each layer of the student and the one of the teacher that it was held against; the weight is its share in the loss.',
    ...(head.includes('CKA') ? ['CKA: how alike the two computed before the training, 0 to 1.'] : []),
  ].join(' ');
}

/**
 * The students that could be chosen among, the chosen one first and then those that were tried longest; columns of which nothing is
 * known are left out. The figures are those of the longest trial.
 */
export function candidatesTable({ candidates = [] }: Pick<DistillReport, 'candidates'>): {
  head: string[];
  rows: string[][];
} {
  const sorted = [...candidates].sort(
    (a, b) => Number(b.chosen) - Number(a.chosen) || b.rounds.length - a.rounds.length || lastScore(b) - lastScore(a),
  );
  const last = (one: ProposedCandidate): CandidateRound | undefined => one.rounds.at(-1);
  const columns = [
    { head: 'student', cells: sorted.map(({ name }) => name) },
    { head: 'size', cells: sorted.map(({ bytes }) => formatBytes(bytes)) },
    { head: 'MACs', cells: sorted.map(({ macs }) => (macs === undefined ? undefined : formatCount(macs))) },
    { head: 'time', cells: sorted.map(({ ms }) => (ms === undefined ? undefined : formatMs(ms))) },
    { head: 'steps', cells: sorted.map((one) => last(one)?.steps.toString()) },
    { head: '1 - D', cells: sorted.map((one) => shown(last(one) && 1 - Math.min(1, last(one)!.alignment))) },
    { head: 'CKA', cells: sorted.map((one) => shown(last(one)?.cka)) },
    { head: 'VAL', cells: sorted.map((one) => shown(last(one)?.quality)) },
    {
      head: 'scores',
      cells: sorted.map(({ rounds }) => rounds.map(({ score }) => score.toFixed(3)).join(' ') || undefined),
    },
    { head: 'outcome', cells: sorted.map(({ chosen, refused, rounds }) => outcomeOf(chosen, refused, rounds.length)) },
  ].filter(({ cells }) => cells.some((cell) => cell !== undefined));
  return {
    head: columns.map(({ head }) => head),
    rows: sorted.map((_, i) => columns.map(({ cells }) => cells[i] ?? '')),
  };
}

export const CANDIDATES_CAPTION =
  'Students that were considered; those within the limits were tried in rounds of half as many and twice as long trainings. ' +
  'Score: 0.4 (1 - D) + 0.4 CKA + 0.2 VAL, of the alignment D of the flow along the depth, the likeness of mapped layers, and ' +
  "the quality on VAL relative to the teacher's, after the longest trial. The chosen one then began anew from its first weights, " +
  'so that its learning rate follows the whole training.';

function lastScore({ rounds }: ProposedCandidate): number {
  return rounds.at(-1)?.score ?? 0;
}

function shown(value: number | undefined): string | undefined {
  return value?.toFixed(3);
}

function outcomeOf(chosen: boolean, refused: string | undefined, rounds: number): string {
  if (chosen) return 'chosen';
  return refused ?? `left after round ${String(rounds)}`;
}

/** A layer in a column of layers. */
export interface PlacedLayer {
  readonly name: string;
  /** 0 first, 1 last. */
  readonly depth: number;
}

/** The layers of both models with their depths: those of the flow where it has them all, else the mapped ones evenly. */
export function placedLayers({ mapping = [], flow }: Pick<DistillReport, 'mapping' | 'flow'>): {
  student: PlacedLayer[];
  teacher: PlacedLayer[];
} {
  const placed = (side: 'student' | 'teacher'): PlacedLayer[] => {
    const names = [...new Set(mapping.map((pair) => pair[side]))];
    const points = flow?.[side] ?? [];
    if (names.every((name) => points.some((point) => point.name === name))) return points;
    return names.map((name, i) => ({ name, depth: names.length === 1 ? 0.5 : i / (names.length - 1) }));
  };
  return { student: placed('student'), teacher: placed('teacher') };
}
