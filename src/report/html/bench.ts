/** Body of the HTML report of `bench`. */
import { BENCH_CAPTION, benchTable, benchTimes, TIMES_CAPTION, TIMES_TITLE } from '../bench.js';
import { plotsOf } from '../plots.js';
import type { BenchReport } from '../report.js';
import type { Content } from './markup.js';
import { plotSections, section, textTable } from './parts.js';

export async function benchBody(report: BenchReport): Promise<Content[]> {
  const { head, rows, names } = benchTable(report, 'wide');
  const times = benchTimes(report);
  const kinds = head.map((_, i) => (i < names ? ('name' as const) : ('number' as const)));
  return [
    section('Methods', BENCH_CAPTION, textTable({ head, rows }, kinds)),
    ...(await plotSections(plotsOf(report))),
    ...(times ? [section(TIMES_TITLE, TIMES_CAPTION, textTable(times, ['name', 'name', 'text', 'number']))] : []),
  ];
}
