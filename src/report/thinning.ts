/** Long lists in short tables. */

/** Rows that a table shows of a course. */
const ROWS = 10;

/** At most `rows` of the items (4 or more) in their order: the first, the last, the first one that is `kept`, and others evenly between. */
export function thinned<T>(items: readonly T[], kept: (item: T) => boolean, rows = ROWS): T[] {
  if (items.length <= rows) return [...items];
  const steps = rows - 2;
  const even = Array.from({ length: steps + 1 }, (_, i) => Math.round((i * (items.length - 1)) / steps));
  const chosen = new Set([...even, items.findIndex(kept)]);
  return items.filter((_, i) => chosen.has(i));
}
