import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { ModelProto } from 'onnx-buf';
import { emptyModel, Graph } from '../onnx/graph.js';
import { DataType } from '../onnx/dtypes.js';
import { tensorInfo } from '../onnx/value-info.js';
import { checkGradients, randomArray } from '../testing/check-gradients.js';
import { array, type NdArray } from '../testing/reference/array.js';
import { evaluate } from '../testing/reference/evaluate.js';
import { declareOutput } from '../testing/tiny-models.js';
import { raisedScores, topAngles } from './top-scores.js';

const logits = fc.array(fc.double({ min: -9, max: 9, noNaN: true }), { minLength: 2, maxLength: 14 });

describe('raisedScores', () => {
  it('raises the highest by rank above the rest, which lies around 0', () => {
    // K = 2 of 6; rest -1, 0, 1, -2 with mean -0.5; highest 5 and 3 with mean 4: delta 4.5.
    const { scores, highest, lowest } = raisedScores([3, -1, 0, 5, 1, -2], 3, 2);
    expect([...scores]).toEqual([3.5 * 1.5 + 4.5, -0.5, 0.5, 5.5 * 2 + 4.5, 1.5, -1.5]);
    expect([...highest]).toEqual([1, 0, 0, 1, 0, 0]);
    expect([...lowest]).toEqual([0, 1, 0, 0, 0, 1]);
  });

  it('lets a label that the teacher misses draw level with its first choice, among the highest or not', () => {
    for (const label of [0, 4]) {
      const { scores, highest } = raisedScores([3, -1, 0, 5, 1, -2], label, 2);
      expect(scores[label]).toBe(scores[3]);
      expect(highest[label]).toBe(1);
    }
  });

  it('keeps the order of the classes, but for the label, and does not mind a shift', () => {
    fc.assert(
      fc.property(logits, fc.nat(), fc.double({ min: -50, max: 50, noNaN: true }), (row, pick, shift) => {
        const label = pick % row.length;
        const { scores, highest, lowest } = raisedScores(row, label);
        for (const [a, x] of row.entries())
          for (const [b, y] of row.entries())
            if (a !== label && b !== label && x > y) expect(scores[a]).toBeGreaterThanOrEqual(scores[b]!);
        expect(scores[label]).toBeGreaterThanOrEqual(Math.max(...scores) - 1e-9);
        expect(highest.every((mark, c) => mark + lowest[c]! < 2)).toBe(true);
        const moved = raisedScores(
          row.map((z) => z + shift),
          label,
        ).scores;
        // A tie may be broken by the rounding of the sum.
        const gap = Math.min(
          ...[...row].sort((a, b) => a - b).map((z, i, all) => (i > 0 ? z - all[i - 1]! : Infinity)),
        );
        if (gap > 1e-6) moved.forEach((z, c) => expect(z).toBeCloseTo(scores[c]!, 6));
      }),
    );
  });
});

/** Inputs z and t, output the losses of the samples. */
function lossModel(samples: number, classes: number): ModelProto {
  const graph = new Graph(emptyModel(17));
  const output = graph.addInput(tensorInfo('z', DataType.FLOAT, [samples, classes]));
  const target = graph.addInput(tensorInfo('t', DataType.FLOAT, [samples, 3, classes]));
  declareOutput(graph, topAngles({ graph, output, target, rank: 2, temperature: 4 }), [samples]);
  return graph.toModel();
}

const [SAMPLES, CLASSES] = [3, 7];

function targets(seed: number): NdArray {
  const t = randomArray([SAMPLES, CLASSES], seed);
  const rows = Array.from({ length: SAMPLES }, (_, n) => {
    const { scores, highest, lowest } = raisedScores(t.data.subarray(n * CLASSES, (n + 1) * CLASSES), n, 2);
    return [...scores, ...highest, ...lowest];
  });
  return array([SAMPLES, 3, CLASSES], rows.flat());
}

const lossesOf = (z: NdArray, t: NdArray): Float64Array => {
  const model = lossModel(z.dims[0]!, z.dims[1]!);
  return Float64Array.from(evaluate(model, { z, t }).get(model.graph!.output[0]!.name)!.data);
};

describe('topAngles', () => {
  it('is one less the cosines of the groups, and the contrast both ways', () => {
    const [z, t] = [randomArray([SAMPLES, CLASSES], 5), targets(6)];
    const classes = Array.from({ length: CLASSES }, (_, c) => c);
    const student = (n: number): number[] => classes.map((c) => z.data[n * CLASSES + c]!);
    const part = (n: number, p: number): number[] => classes.map((c) => t.data[(3 * n + p) * CLASSES + c]!);
    const cosine = (a: readonly number[], b: readonly number[], among: readonly number[] = classes): number => {
      const sum = (f: (c: number) => number): number => among.reduce((total, c) => total + f(c), 0);
      return sum((c) => a[c]! * b[c]!) / Math.sqrt(sum((c) => a[c]! ** 2) * sum((c) => b[c]! ** 2));
    };
    const expected = Array.from({ length: SAMPLES }, (_, n) => {
      const groups = [part(n, 1), part(n, 2)].map((marks) => classes.filter((c) => marks[c] === 1));
      groups.push(classes.filter((c) => !groups.flat().includes(c)));
      const there = groups.filter((group) => group.length > 0);
      const angle = there.reduce((sum, group) => sum + cosine(student(n), part(n, 0), group), 0) / there.length;
      const likeness = (a: number, b: number): number => cosine(student(a), part(b, 0));
      const others = Array.from({ length: SAMPLES }, (_, m) => m);
      const total = (f: (m: number) => number): number => Math.log(others.reduce((s, m) => s + Math.exp(f(m)), 0));
      const contrast = (total((m) => likeness(n, m)) + total((m) => likeness(m, n))) / 2 - likeness(n, n);
      return 1 - angle + contrast;
    });
    lossesOf(z, t).forEach((loss, n) => expect(loss).toBeCloseTo(expected[n]!, 6));
  });

  it('leaves out a group without classes', () => {
    // Two classes: the highest and the lowest, no others.
    const t = array([1, 3, 2], [2, -1, 1, 0, 0, 1]);
    expect(lossesOf(array([1, 2], [4, -3]), t)[0]).toBeCloseTo(0, 6);
    expect(lossesOf(array([1, 2], [4, 3]), t)[0]).toBeCloseTo(1, 6);
  });

  it('has the gradient of finite differences', () => {
    const t = targets(8);
    const gradients = checkGradients(
      lossModel(SAMPLES, CLASSES),
      { z: randomArray([SAMPLES, CLASSES], 7), t },
      { wanted: ['z'] },
    );
    expect(Math.max(...gradients.get('z')!.data.map(Math.abs))).toBeGreaterThan(0.01);
  });
});
