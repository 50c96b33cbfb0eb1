/** How near a model comes to the original on VAL, as text: the share of right answers, of equal answers, or the divergence. */
import { formatMetric, metricHead, significant } from './format.js';
import type { Quality, RecoverySummary } from './report.js';

export type Measure = RecoverySummary['measure'];

/** The share that a quality can have beside its divergence. */
export type ScoreName = 'top1' | 'agreement';

/** The share to show of several qualities: top-1 where there are labels, else the agreement; undefined where there is neither. */
export function scoreNameOf(qualities: readonly Quality[]): ScoreName | undefined {
  return (['top1', 'agreement'] as const).find((name) => qualities.some((quality) => quality[name] !== undefined));
}

export function scoreText(quality: Quality, name: ScoreName): string | undefined {
  const value = quality[name];
  return value === undefined ? undefined : formatMetric({ name, value });
}

/** Short name of a divergence for the head of a column. */
export function distanceHead(measure: Measure): string {
  return measure === 'kl' ? 'KL' : 'error';
}

/** A divergence as the title of a plot, short enough for a phone. */
export function distanceTitle(measure: Measure): string {
  return measure === 'kl' ? 'KL divergence on VAL, nats' : 'relative error on VAL';
}

/** `0.0437 nats, 97.88 % top-1`. */
export function qualityText(quality: Quality, measure: Measure): string {
  const distance = significant(quality.divergence, 3) + (measure === 'kl' ? ' nats' : '');
  const name = scoreNameOf([quality]);
  return name === undefined ? distance : `${distance}, ${scoreText(quality, name) ?? ''} ${metricHead(name)}`;
}
