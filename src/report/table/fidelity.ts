/** Terminal rows of how much of a teacher a student has. */
import { fidelityCaption, fidelityRows } from '../fidelity.js';
import type { Fidelity } from '../report.js';
import { grid, wrapped } from './grid.js';
import type { Paint } from './grid.js';

export function fidelityLines(fidelity: Fidelity, paint: Paint, columns: number): string[] {
  const rows = fidelityRows(fidelity).map(({ label, value, teacher = '' }) => [label, value, teacher]);
  return [
    ...wrapped(fidelityCaption(fidelity), columns),
    ...grid(['fidelity', 'student', 'teacher'], rows, 'lrr', paint),
  ];
}
