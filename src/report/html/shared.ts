/** Parts of the page that many reports have: data and settings, checks of the file, stages, reproduction, warnings. */
import { formatBytes, formatSeconds, significant } from '../format.js';
import type {
  CompressReport,
  DataSummary,
  DistillReport,
  PruneReport,
  QuantizeReport,
  Report,
  TrainReport,
} from '../report.js';
import { timeTable } from '../time.js';
import { html } from './markup.js';
import type { Content, Markup } from './markup.js';
import { factList, section, settingFacts, textTable } from './parts.js';

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

/** Seed, target, settings and data of a run that wrote a model; `facts` come first. */
export function makingSection(
  report: CompressReport | QuantizeReport | PruneReport | TrainReport | DistillReport,
  facts: readonly (readonly [string, Content])[] = [],
): Markup {
  const { seed, target, settings, data } = report;
  return section(
    'How it was made',
    undefined,
    html`<div class="columns">
      ${factList([...facts, ['seed', seed], ['target', target], ...settingFacts(settings)])}${factList(dataFacts(data))}
    </div>`,
  );
}

export function verificationSection({
  verification,
}: Pick<CompressReport | QuantizeReport | PruneReport, 'verification'>): Content {
  if (verification === undefined) return undefined;
  const { maxAbsDiff, samples, fused, checks = [] } = verification;
  const operators = Object.entries(fused ?? {}).sort((a, b) => b[1] - a[1]);
  return section(
    'Verification',
    'Checked on the written file.',
    factList([
      [
        'largest difference to the simulation',
        maxAbsDiff === undefined
          ? undefined
          : `${significant(maxAbsDiff, 3)}${samples === undefined ? '' : ` over ${samples} samples`}`,
      ],
      ['operators after optimisation', operators.map(([op, n]) => `${n} x ${op}`).join(', ')],
      ...checks.map((check): [string, Content] => [
        check.name,
        html`<span class="${check.passed ? 'good' : 'bad'}">${check.passed ? 'passed' : 'FAILED'}</span
          >${check.detail === undefined ? undefined : ` (${check.detail})`}`,
      ]),
    ]),
  );
}

/** How long each stage took. */
export function timeSection(report: Report): Content {
  const table = timeTable(report);
  return table.rows.length === 0 ? undefined : section('Where the time went', undefined, textTable(table, ['text']));
}

/** The command that makes the same result, and what it ran on. */
export function reproductionSection(report: Report): Markup {
  const { environment, peakRssBytes } = report;
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
    ]),
  );
}
