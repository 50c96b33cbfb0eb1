/** Where the seconds of a run went, independent of the medium. */
import { formatSeconds } from './format.js';
import type { Report } from './report.js';

/** Less than this share of the whole is not worth a row. */
const LEAST_REST = 0.005;

/** Stages in their order and what none of them took; no rows where the parts are not known. */
export function timeTable(report: Report): { head: string[]; rows: string[][] } {
  const parts = partsOf(report);
  const sum = parts.reduce((total, part) => total + part.seconds, 0);
  const whole = Math.max(report.seconds, sum);
  const rest = whole - sum;
  const all = rest > LEAST_REST * whole ? [...parts, { name: 'everything else', seconds: rest }] : parts;
  return {
    head: ['stage', 'time', 'share'],
    rows:
      parts.length === 0
        ? []
        : all.map(({ name, seconds }) => [
            name,
            formatSeconds(seconds),
            whole > 0 ? `${((100 * seconds) / whole).toFixed(1)} %` : '',
          ]),
  };
}

function partsOf(report: Report): { name: string; seconds: number }[] {
  if (report.stages !== undefined && report.stages.length > 0) return report.stages;
  return 'training' in report ? [{ name: 'training', seconds: report.training.seconds }] : [];
}
