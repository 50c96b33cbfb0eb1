/** Building blocks of the HTML report: cards, fact lists, tables in their scroll boxes, plots in two widths. */
import { formatSetting, settingLabel } from '../format.js';
import { plotToSvg } from '../plots.js';
import type { Plot } from '../plots.js';
import { escapeHtml, html, trustedMarkup } from './markup.js';
import type { Content, Markup } from './markup.js';

/** Widths in pixels: the full column and half of it on a desktop, the column on a phone. */
const FULL = 978;
const HALF = 462;
const NARROW = 340;

export interface Card {
  readonly label: string;
  readonly value: string;
  /** Second line, for example the value before. */
  readonly note?: Content;
}

export function cardGrid(cards: readonly Card[]): Markup {
  const items = cards.map(
    (card) =>
      html`<div class="card">
        <div class="label">${card.label}</div>
        <div class="value">${card.value}</div>
        <div class="note">${card.note}</div>
      </div>`,
  );
  return html`<div class="cards">${items}</div>`;
}

/** A sentence that must not be missed. */
export function notice(text: string): Markup {
  return html`<div class="notice"><p>${text}</p></div>`;
}

/** A titled box; nothing when it has no content. */
export function section(title: string, caption: string | undefined, ...content: readonly Content[]): Markup {
  const note = caption === undefined ? undefined : html`<p class="caption">${caption}</p>`;
  return html`<section>
    <h2>${title}</h2>
    ${note}${content}
  </section>`;
}

/** Terms and values; entries without a value are left out. */
export function factList(facts: readonly (readonly [string, Content])[]): Markup {
  const known = facts.filter(([, value]) => value !== undefined && value !== '');
  return html`<dl class="facts">
    ${known.map(
      ([term, value]) =>
        html`<dt>${term}</dt>
          <dd>${value}</dd>`,
    )}
  </dl>`;
}

export function settingFacts(
  settings: Readonly<Record<string, string | number | boolean | readonly (string | number)[]>> | undefined,
): [string, string][] {
  return Object.entries(settings ?? {}).map(([key, value]) => [settingLabel(key), formatSetting(value)]);
}

export interface Column<T> {
  readonly head: string;
  /** Text, names and prose to the left, numbers to the right; names and prose are broken into lines; `small` text in prose has lines of its own. */
  readonly kind: 'name' | 'text' | 'prose' | 'number';
  readonly cell: (row: T, index: number) => Content;
}

/** A table that scrolls inside its own box. Columns in which no row has a value are left out. */
export function dataTable<T>(columns: readonly Column<T>[], rows: readonly T[]): Markup {
  const filled = columns.filter((column) => rows.some((row, i) => isFilled(column.cell(row, i))));
  const styleOf = (column: Column<T>): Markup =>
    trustedMarkup(column.kind === 'text' ? '' : ` class="${column.kind === 'number' ? 'n' : column.kind}"`);
  const head = filled.map(
    (column) => html`<th${column.kind === 'number' ? styleOf(column) : undefined}>${column.head}</th>`,
  );
  const body = rows.map(
    (row, i) =>
      html`<tr>
        ${filled.map((column) => html`<td${styleOf(column)}>${column.cell(row, i)}</td>`)}
      </tr> `,
  );
  return html`<div class="scroll" tabindex="0">
    <table>
      <thead>
        <tr>
          ${head}
        </tr>
      </thead>
      <tbody>
        ${body}
      </tbody>
    </table>
  </div>`;
}

/** A table of text: `kinds` of the first columns, then numbers; a column without a head is text. */
export function textTable(
  { head, rows }: { readonly head: readonly string[]; readonly rows: readonly (readonly string[])[] },
  kinds: readonly Column<never>['kind'][] = [],
): Markup {
  const columns = head.map((title, i) => ({
    head: title,
    kind: kinds.at(i) ?? (title === '' ? ('text' as const) : ('number' as const)),
    cell: (row: readonly string[]) => row[i],
  }));
  return dataTable(columns, rows);
}

function isFilled(content: Content): boolean {
  return content !== undefined && content !== '';
}

/** The plots as sections; neighbours of half width share a row on a wide page. */
export async function plotSections(plots: readonly Plot[]): Promise<Markup[]> {
  const sections: Markup[] = [];
  for (let i = 0; i < plots.length; i++) {
    const next = plots.at(i + 1);
    if (plots[i].span === 'half' && next?.span === 'half') {
      sections.push(html`<div class="pair">${await plotSection(plots[i], HALF)}${await plotSection(next, HALF)}</div>`);
      i++;
    } else {
      sections.push(await plotSection(plots[i], FULL));
    }
  }
  return sections;
}

async function plotSection(plot: Plot, width: number): Promise<Markup> {
  const wide = inlineSvg(await plotToSvg(plot, width), plot.title);
  const narrow = inlineSvg(await plotToSvg(plot, NARROW, false), plot.title);
  return section(
    plot.title,
    plot.caption,
    html`<div class="plot" id="${plot.id}">
      <div class="wide">${wide}</div>
      <div class="narrow">${narrow}</div>
    </div>`,
  );
}

/** SVG inside HTML needs no namespaces; without them the page holds no address at all. */
function inlineSvg(svg: string, title: string): Markup {
  const bare = svg.replace(/ xmlns(:xlink)?="[^"]*"/g, '');
  return trustedMarkup(bare.replace('<svg ', `<svg role="img" aria-label="${escapeHtml(title)}" `));
}
