/** How much of a teacher a student has, as Markdown. */
import { fidelityCaption, fidelityRows } from '../fidelity.js';
import type { Fidelity } from '../report.js';
import { table, titled } from './parts.js';

/** @param title another one where a report has several; it goes in as it is */
export function fidelityParts(fidelity: Fidelity, title = 'Fidelity'): string[] {
  const rows = fidelityRows(fidelity).map(({ label, value, teacher, explanation }) => [
    label,
    value,
    teacher,
    explanation,
  ]);
  return titled(
    title,
    rows.length,
    () => `${fidelityCaption(fidelity)}\n\n${table(['figure', 'student', 'teacher', 'what it says'], rows, 'lrrl')}`,
  );
}
