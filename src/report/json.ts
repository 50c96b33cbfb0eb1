/** The report as JSON text, checked against the schema so that no NaN turns into a silent null. */
import { FlowCompressError } from '../errors.js';
import { describeIssues, reportSchema } from './report.js';
import type { Report } from './report.js';

/**
 * One JSON object, two-space indented, with a final newline. Fields beyond the schema are kept.
 * @throws FlowCompressError `internal` when the report breaks its own schema.
 */
export function reportToJson(report: Report): string {
  const checked = reportSchema.safeParse(report);
  if (!checked.success) {
    throw new FlowCompressError('internal', `The report is inconsistent: ${describeIssues(checked.error)}`, {
      hint: 'This is a defect of flow-compress; please report it with the command that was run.',
    });
  }
  return `${JSON.stringify(report, null, 2)}\n`;
}
