/** What was measured before and after, as cards and as a section of the page. */
import type { Measurement } from '../report.js';
import { BEFORE_AND_AFTER, comparisonRows } from '../summary.js';
import type { ComparisonRow, Sides, Verdict } from '../summary.js';
import { html } from './markup.js';
import type { Content, Markup } from './markup.js';
import { dataTable, section } from './parts.js';
import type { Card } from './parts.js';

/** The values after, with the values before and the changes below; `word` stands in front of the value before. */
export function comparisonCards(rows: readonly ComparisonRow[], word = 'from'): Card[] {
  return rows.flatMap(({ label, before, after, ...row }): Card[] =>
    after === undefined
      ? []
      : [
          {
            label,
            value: after,
            note: html`${before === undefined ? undefined : `${word} ${before} `}${changeOf(row)}`,
          },
        ],
  );
}

/** @param before absent for a model that was built anew: the section then has one column */
export function comparisonSection(
  before: Measurement | undefined,
  after: Measurement,
  sides: Sides = BEFORE_AND_AFTER,
): Markup {
  const isNew = before === undefined;
  return section(
    isNew ? 'What was measured' : sides.title,
    'Bytes are those of the file on disk. Accuracy and latency are of the files in ONNX Runtime.',
    dataTable(
      [
        { head: '', kind: 'text', cell: (row) => row.label },
        { head: sides.before, kind: 'number', cell: (row) => row.before },
        { head: isNew ? 'measured' : sides.after, kind: 'number', cell: (row) => row.after },
        { head: 'change', kind: 'text', cell: changeOf },
      ],
      comparisonRows(before ?? {}, after, sides),
    ),
  );
}

function changeOf({ change, verdict }: Pick<ComparisonRow, 'change' | 'verdict'>): Content {
  if (change === undefined) return undefined;
  return html`<span class="${classOf(verdict)}">${change}</span>`;
}

function classOf(verdict: Verdict | undefined): string {
  return verdict === 'better' ? 'good' : verdict === 'worse' ? 'bad' : '';
}
