/** How much of a teacher a student has, as a section of the page. */
import { fidelityCaption, fidelityRows } from '../fidelity.js';
import type { Fidelity } from '../report.js';
import { html } from './markup.js';
import type { Markup } from './markup.js';
import { dataTable, section } from './parts.js';

/** @param title another one where a page has several */
export function fidelitySection(fidelity: Fidelity, title = 'Fidelity'): Markup {
  return section(
    title,
    fidelityCaption(fidelity),
    dataTable(
      [
        { head: 'figure', kind: 'prose', cell: (row) => html`${row.label}<small>${row.explanation}</small>` },
        { head: 'student', kind: 'number', cell: (row) => row.value },
        { head: 'teacher', kind: 'number', cell: (row) => row.teacher },
      ],
      fidelityRows(fidelity),
    ),
  );
}
