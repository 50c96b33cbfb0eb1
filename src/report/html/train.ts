/** Body of the HTML report of `train`. */
import { counted, formatBytes, formatCount, formatMetric, formatSeconds, metricLabel } from '../format.js';
import { plotsOf } from '../plots.js';
import type { TrainReport } from '../report.js';
import { comparisonRows } from '../summary.js';
import { courseOf, courseTable, endSentence, formatPosition } from '../training.js';
import type { CoursePoint, TrainedReport } from '../training.js';
import { comparisonCards, comparisonSection } from './comparison.js';
import type { Content } from './markup.js';
import { cardGrid, plotSections, section, textTable } from './parts.js';
import type { Card } from './parts.js';
import { makingSection } from './shared.js';

export async function trainBody(report: TrainReport): Promise<Content[]> {
  const course = courseOf(report);
  return [
    cardGrid(headlineCards(report, course)),
    ...(await plotSections(plotsOf(report))),
    comparisonSection(report.before, report.after),
    epochSection(report),
    makingSection(report),
  ];
}

/** The main metric on TEST, the best evaluation on VAL, the time, the trained parameters and the file size. */
function headlineCards(report: TrainReport, course: readonly CoursePoint[]): Card[] {
  const { before, after, training } = report;
  const { metric } = after;
  const best = course.find((point) => point.best);
  const last = course.at(-1);
  return [
    ...comparisonCards(
      comparisonRows(before ?? {}, after)
        .filter(({ label }) => metric !== undefined && label === metricLabel(metric.name))
        .map((row) => ({ ...row, label: `${row.label} on ${metric?.split.toUpperCase() ?? ''}` })),
    ),
    ...(best === undefined || last === undefined
      ? []
      : [
          {
            label: `best ${metricLabel(training.metric)} on VAL`,
            value: formatMetric({ name: training.metric, value: best.score }),
            note:
              last.position > 0
                ? `epoch ${formatPosition(best.position)} of ${formatPosition(last.position)}`
                : undefined,
          },
        ]),
    { label: 'training time', value: formatSeconds(training.seconds), note: counted(training.steps, 'update') },
    { label: 'trained parameters', value: formatCount(training.parameters) },
    { label: 'file size', value: formatBytes(after.bytes) },
  ];
}

/** The course of a training and how it ended. */
export function epochSection(report: TrainedReport): Content {
  const { head, rows } = courseTable(report);
  return section('Epochs', endSentence(report), rows.length === 0 ? undefined : textTable({ head, rows }));
}
