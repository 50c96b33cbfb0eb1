/** A template tag that escapes every value, so that no text of a model or a path can become markup. */

/** Text that is markup already. Only `html` and `trustedMarkup` make it. */
export interface Markup {
  readonly markup: string;
}

export type Content = Markup | string | number | undefined | readonly Content[];

/** `html\`<p>${text}</p>\``: strings and numbers are escaped, Markup goes in as it is, lists are joined, undefined is empty. */
export function html(strings: TemplateStringsArray, ...values: readonly Content[]): Markup {
  let markup = strings[0];
  values.forEach((value, i) => {
    markup += render(value) + strings[i + 1];
  });
  return { markup };
}

/** Declares text as markup; for SVG made by this library and for style sheets only. */
export function trustedMarkup(markup: string): Markup {
  return { markup };
}

function render(value: Content): string {
  if (value === undefined) return '';
  if (typeof value === 'string' || typeof value === 'number') return escapeHtml(String(value));
  if ('markup' in value) return value.markup;
  return value.map(render).join('');
}

const ENTITIES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

/** Escapes for element content and for quoted attributes; control characters become spaces. */
export function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (one) => ENTITIES[one]).replace(/[^\P{Cc}\n]+/gu, ' ');
}
