/** Parts of the page that every report has: data, stages, reproduction, warnings. */
import { formatBytes, formatSeconds } from '../format.js';
import type { DataSummary, Report } from '../report.js';
import { html } from './markup.js';
import type { Content, Markup } from './markup.js';
import { factList, section } from './parts.js';

export function dataFacts(data: DataSummary | undefined): [string, Content][] {
  if (data === undefined) return [];
  const split = Object.entries(data.samples).map(([name, n]) => `${name} ${n.toLocaleString('en-US')}`);
  return [
    ['data', data.source],
    ['test data', data.test],
    ['labels', data.labels ? (data.classes === undefined ? 'yes' : `yes, ${data.classes} classes`) : 'none'],
    ['samples', split.join(', ')],
  ];
}

export function warningNotice(report: Report): Content {
  const warnings = report.warnings ?? [];
  if (warnings.length === 0) return undefined;
  return html`<div class="notice">
    <strong>${warnings.length === 1 ? 'Note' : 'Notes'}</strong>
    <ul>
      ${warnings.map((text) => html`<li>${text}</li>`)}
    </ul>
  </div>`;
}

/** The command that makes the same result, what it ran on and how long each stage took. */
export function reproductionSection(report: Report): Markup {
  const { environment, stages = [], peakRssBytes } = report;
  return section(
    'How to reproduce',
    undefined,
    report.commandLine === undefined ? undefined : html`<pre>${report.commandLine}</pre>`,
    factList([
      ['flow-compress', report.version],
      ['engine', environment?.engine],
      ['Node', environment?.node],
      ['processor', environment?.cpu],
      ['time', formatSeconds(report.seconds)],
      ['peak memory', peakRssBytes === undefined ? undefined : formatBytes(peakRssBytes)],
      ['stages', stages.map((stage) => `${stage.name} ${formatSeconds(stage.seconds)}`).join(', ')],
    ]),
  );
}
