/** What the reports say about a recovery, independent of the medium. */
import { counted, formatSeconds, metricHead, significant, shortNumber } from './format.js';
import { distanceHead, qualityText, scoreNameOf, scoreText } from './quality.js';
import type { PruneReport, Quality, QuantizeReport, RecoveryPoint } from './report.js';

/** A report of a command that lets the compressed model learn from the original. */
export type RecoveredReport = Pick<QuantizeReport | PruneReport, 'command' | 'recovery'>;

/** What learning from the original brought on VAL, in one sentence; undefined where nothing was learned. */
export function recoverySentence({ command, recovery }: RecoveredReport): string | undefined {
  if (recovery === undefined) return undefined;
  const { steps, seconds, measure, before, after, bestStep } = recovery;
  const length = `${counted(steps, 'update')} in ${formatSeconds(seconds)}`;
  const what = measure === 'kl' ? 'divergence from the original' : 'relative error against the original';
  const was = qualityText(before, measure);
  const start = command === 'prune' ? 'pruned' : 'rounded';
  if (bestStep === 0)
    return `Recovery, ${length}: no state was better on VAL than the ${start} model (${what} ${was}).`;
  return `Recovery, ${length}: ${what} on VAL ${was} before, ${qualityText(after, measure)} after.`;
}

/** Evaluations on VAL in order, the model that began to learn first. */
export function recoveryRows({ recovery }: Pick<RecoveredReport, 'recovery'>): { head: string[]; rows: string[][] } {
  if (recovery === undefined) return { head: [], rows: [] };
  const { measure, before, points, bestStep } = recovery;
  const score = scoreNameOf([before, ...points]);
  const row = (step: number, quality: Quality, point?: RecoveryPoint): string[] => [
    step.toLocaleString('en-US'),
    point === undefined ? '' : significant(point.loss, 3),
    significant(quality.divergence, 3),
    ...(score === undefined ? [] : [scoreText(quality, score) ?? '']),
    point === undefined ? '' : shortNumber(point.learningRate, 2),
    step === bestStep ? 'written' : '',
  ];
  return {
    head: [
      ...['updates', 'loss', `VAL ${distanceHead(measure)}`],
      ...(score === undefined ? [] : [`VAL ${metricHead(score)}`]),
      ...['learning rate', ''],
    ],
    rows: [row(0, before), ...points.map((point) => row(point.step, point, point))],
  };
}
