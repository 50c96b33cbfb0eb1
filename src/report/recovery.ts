/** What the reports say about a recovery, independent of the medium. */
import { counted, formatMetric, formatSeconds, significant, shortNumber } from './format.js';
import type { QuantizeReport, RecoveryPoint, RecoverySummary } from './report.js';

type Quality = RecoverySummary['before'];

/** `0.0437 nats, 97.88 % top-1`. */
function qualityText({ divergence, top1 }: Quality, measure: RecoverySummary['measure']): string {
  const distance = measure === 'kl' ? `${significant(divergence, 3)} nats` : significant(divergence, 3);
  return top1 === undefined ? distance : `${distance}, ${formatMetric({ name: 'top1', value: top1 })} top-1`;
}

/** What learning from the original brought on VAL, in one sentence; undefined where nothing was learned. */
export function recoverySentence({ recovery }: Pick<QuantizeReport, 'recovery'>): string | undefined {
  if (recovery === undefined) return undefined;
  const { steps, seconds, measure, before, after, bestStep } = recovery;
  const length = `${counted(steps, 'update')} in ${formatSeconds(seconds)}`;
  const what = measure === 'kl' ? 'divergence from the original' : 'relative error against the original';
  const was = qualityText(before, measure);
  if (bestStep === 0) return `Recovery, ${length}: no state was better on VAL than the rounded model (${what} ${was}).`;
  return `Recovery, ${length}: ${what} on VAL ${was} before, ${qualityText(after, measure)} after.`;
}

/** Evaluations on VAL in order, the rounded model first. */
export function recoveryRows({ recovery }: Pick<QuantizeReport, 'recovery'>): { head: string[]; rows: string[][] } {
  if (recovery === undefined) return { head: [], rows: [] };
  const { measure, before, points, bestStep } = recovery;
  const labelled = before.top1 !== undefined;
  const row = (step: number, quality: Quality, point?: RecoveryPoint): string[] => [
    step.toLocaleString('en-US'),
    point === undefined ? '' : significant(point.loss, 3),
    significant(quality.divergence, 3),
    ...(labelled ? [quality.top1 === undefined ? '' : formatMetric({ name: 'top1', value: quality.top1 })] : []),
    point === undefined ? '' : shortNumber(point.learningRate, 2),
    step === bestStep ? 'written' : '',
  ];
  return {
    head: [
      ...['updates', 'loss', measure === 'kl' ? 'VAL KL' : 'VAL error'],
      ...(labelled ? ['VAL top-1'] : []),
      ...['learning rate', ''],
    ],
    rows: [row(0, before), ...points.map((point) => row(point.step, point, point))],
  };
}
