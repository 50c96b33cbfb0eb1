/** Einsum as a sum over all index tuples. */
import { at, build, forEachIndex, type NdArray } from '../array.js';
import type { ReferenceOperator } from '../operator.js';

/**
 * The labels of a term, `...` spelled out as as many numbered labels as `rank` leaves room for (the last one is `0`, so
 * that ellipses of different length meet at the end as in broadcasting).
 */
function labelsOf(term: string, rank: number): string[] {
  const [before, after] = term.split('...') as [string, string | undefined];
  if (after === undefined) return [...before];
  const hidden = rank - before.length - after.length;
  return [...before, ...Array.from({ length: hidden }, (_, i) => `.${String(hidden - 1 - i)}`), ...after];
}

const sumOfProducts: ReferenceOperator = (inputs, node) => {
  const operands = inputs.map((x) => x!);
  const [left, right] = node.string('equation', '').replaceAll(' ', '').split('->') as [string, string | undefined];
  const terms = left.split(',').map((term, k) => labelsOf(term, operands[k]!.dims.length));
  const sizes = new Map<string, number>();
  terms.forEach((labels, k) => {
    labels.forEach((label, axis) => {
      sizes.set(label, Math.max(sizes.get(label) ?? 1, operands[k]!.dims[axis]!));
    });
  });
  const hidden = [...sizes.keys()].filter((label) => label.startsWith('.')).length;
  const all = terms.flat();
  const once = [...sizes.keys()].filter(
    (label) => !label.startsWith('.') && all.indexOf(label) === all.lastIndexOf(label),
  );
  const target = right ?? `...${once.sort().join('')}`;
  const output = labelsOf(target, target.replace('...', '').length + hidden);
  const summed = [...sizes.keys()].filter((label) => !output.includes(label));
  const sizeOfLabel = (label: string): number => sizes.get(label)!;
  const read = (x: NdArray, labels: readonly string[], position: ReadonlyMap<string, number>): number =>
    at(
      x,
      labels.map((label, axis) => (x.dims[axis] === 1 ? 0 : position.get(label)!)),
    );
  return [
    build(output.map(sizeOfLabel), (index) => {
      let sum = 0;
      const position = new Map(output.map((label, i) => [label, index[i]!]));
      forEachIndex(summed.map(sizeOfLabel), (inner) => {
        summed.forEach((label, i) => position.set(label, inner[i]!));
        sum += operands.reduce((product, x, k) => product * read(x, terms[k]!, position), 1);
      });
      return sum;
    }),
  ];
};

export const einsum: Readonly<Record<string, ReferenceOperator>> = { Einsum: sumOfProducts };
