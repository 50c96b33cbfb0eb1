/** F1, the harmonic mean of precision and recall, from counts per class. */

/** How often a class is a label, is predicted, and is both at once. */
interface ClassCount {
  labelled: number;
  predicted: number;
  both: number;
}

/** By class; predictions below 0 (no class at all) are no class of their own. */
export type ClassCounts = Map<number, ClassCount>;

export function countClasses(counts: ClassCounts, predictions: Int32Array, labels: Int32Array): void {
  const of = (each: number): ClassCount => {
    const known = counts.get(each);
    if (known) return known;
    const fresh = { labelled: 0, predicted: 0, both: 0 };
    counts.set(each, fresh);
    return fresh;
  };
  labels.forEach((label, i) => {
    const prediction = predictions[i]!;
    const own = of(label);
    own.labelled++;
    if (prediction === label) own.both++;
    if (prediction >= 0) of(prediction).predicted++;
  });
}

/** 2 both / (labelled + predicted), 0 for a class that never occurs. */
export function f1OfClass(counts: ClassCounts, each: number): number {
  const { labelled, predicted, both } = counts.get(each) ?? { labelled: 0, predicted: 0, both: 0 };
  return labelled + predicted === 0 ? 0 : (2 * both) / (labelled + predicted);
}

/** The mean over the classes that occur as labels or predictions. */
export function f1Macro(counts: ClassCounts): number {
  const classes = [...counts.keys()];
  return classes.reduce((sum, each) => sum + f1OfClass(counts, each), 0) / Math.max(1, classes.length);
}
