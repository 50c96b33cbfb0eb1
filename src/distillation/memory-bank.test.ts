import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { ModelProto } from 'onnx-buf';
import { emptyModel, Graph } from '../onnx/graph.js';
import { DataType } from '../onnx/dtypes.js';
import { tensorInfo } from '../onnx/value-info.js';
import { checkGradients, randomArray } from '../testing/check-gradients.js';
import { array } from '../testing/reference/array.js';
import { evaluate } from '../testing/reference/evaluate.js';
import { declareOutput } from '../testing/tiny-models.js';
import { bankContrast, negativeDraws, openBank } from './memory-bank.js';

const T = 0.07;
const dot = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
  Array.from(a, (v, k) => v * b[k]!).reduce((x, y) => x + y, 0);

describe('negativeDraws', () => {
  it('never takes a sample of the batch, and takes the same ones for the same draw only', () => {
    fc.assert(
      fc.property(fc.integer({ min: 3, max: 40 }), fc.nat(1000), fc.nat(), (samples, seed, pick) => {
        const batch = [pick % samples, (pick + 1) % samples];
        const [a, b] = [negativeDraws(samples, 64, seed), negativeDraws(samples, 64, seed)];
        const first = a.of(batch);
        expect(first.some((n) => batch.includes(n) || n < 0 || n >= samples)).toBe(false);
        expect([...b.of(batch)]).toEqual([...first]);
        a.next();
        b.done = 1;
        expect([...b.of(batch)]).toEqual([...a.of(batch)]);
        if (samples > 8) expect([...a.of(batch)]).not.toEqual([...first]);
      }),
    );
  });
});

describe('openBank', () => {
  const [SAMPLES, WIDTH] = [6, 128];

  it('begins with directions that are far from each other, other ones by seed', () => {
    const { rows } = openBank(SAMPLES, WIDTH, 1);
    const row = (n: number): Float32Array => rows.subarray(n * WIDTH, (n + 1) * WIDTH);
    for (let a = 0; a < SAMPLES; a++) {
      expect(dot(row(a), row(a))).toBeCloseTo(1, 5);
      for (let b = 0; b < a; b++) expect(Math.abs(dot(row(a), row(b)))).toBeLessThan(0.4);
    }
    expect([...openBank(SAMPLES, WIDTH, 1).rows]).toEqual([...rows]);
    expect([...openBank(SAMPLES, WIDTH, 2).rows]).not.toEqual([...rows]);
  });

  it('expects of unrelated directions what many of them show', () => {
    const [a, b] = [openBank(400, WIDTH, 3), openBank(400, WIDTH, 4)];
    const everyone = Int32Array.from({ length: 400 }, (_, n) => n);
    const expected = a.level;
    a.settle(b.rows, everyone, everyone);
    expect(a.level).not.toBe(expected);
    expect(a.level / expected).toBeCloseTo(1, 1);
  });

  it('goes half of the way to what it is shown, for the samples of the batch alone', () => {
    const bank = openBank(SAMPLES, WIDTH, 5);
    const before = bank.rows.slice();
    const shown = openBank(2, WIDTH, 6).rows;
    bank.update(shown, [4, 1]);
    for (let n = 0; n < SAMPLES; n++) {
      const [was, is] = [before, bank.rows].map((rows) => rows.subarray(n * WIDTH, (n + 1) * WIDTH));
      const at = [4, 1].indexOf(n);
      if (at < 0) {
        expect([...is!]).toEqual([...was!]);
        continue;
      }
      const mixed = was!.map((v, k) => (v + shown[at * WIDTH + k]!) / 2);
      const norm = Math.sqrt(dot(mixed, mixed));
      is!.forEach((v, k) => expect(v).toBeCloseTo(mixed[k]! / norm, 5));
    }
  });

  it('measures the mean power once, on the first batch', () => {
    const bank = openBank(SAMPLES, WIDTH, 7);
    const batch = openBank(2, WIDTH, 8).rows;
    const others = Int32Array.of(3, 5, 3);
    const powers = [0, 1].flatMap((n) =>
      [...others].map((o) =>
        Math.exp(dot(batch.subarray(n * WIDTH, (n + 1) * WIDTH), bank.rows.subarray(o * WIDTH, (o + 1) * WIDTH)) / T),
      ),
    );
    bank.settle(batch, [0, 1], others);
    const level = powers.reduce((a, b) => a + b, 0) / powers.length;
    expect(bank.level / level).toBeCloseTo(1, 5);
    bank.settle(batch, [0, 1], Int32Array.of(2));
    expect(bank.level / level).toBeCloseTo(1, 5);
    const { dims, data } = bank.targets([2, 0], others);
    expect(dims).toEqual([6, WIDTH]);
    for (const [i, n] of [2, 0, 3, 5, 3].entries())
      expect([...(data as Float32Array).subarray(i * WIDTH, (i + 1) * WIDTH)]).toEqual([
        ...bank.rows.subarray(n * WIDTH, (n + 1) * WIDTH),
      ]);
    expect(data.at(-1)).toBeCloseTo(Math.log(3 * bank.level), 5);
  });
});

/** Inputs z [2, 4] and t [2 + others + 1, 4], output the losses of the samples. */
function lossModel(others: number): ModelProto {
  const graph = new Graph(emptyModel(17));
  const output = graph.addInput(tensorInfo('z', DataType.FLOAT, [2, 4]));
  const target = graph.addInput(tensorInfo('t', DataType.FLOAT, [3 + others, 4]));
  declareOutput(graph, bankContrast(2)({ graph, output, target, rank: 2, temperature: 1 }), [2]);
  return graph.toModel();
}

describe('bankContrast', () => {
  const OTHERS = 3;
  const [z, rows] = [randomArray([2, 4], 9), randomArray([2 + OTHERS, 4], 10)];
  // Small, as cosines are.
  const small = { ...z, data: z.data.map((v) => v / 10) };
  const level = Math.log(OTHERS * 1.7);
  const t = array([3 + OTHERS, 4], [...rows.data, ...new Array<number>(4).fill(level)]);
  const row = (n: number): Float64Array => Float64Array.from(rows.data.subarray(4 * n, 4 * n + 4));

  it('is the logarithmic loss of telling a sample from the others', () => {
    const model = lossModel(OTHERS);
    const found = evaluate(model, { z: small, t }).get(model.graph!.output[0]!.name)!.data;
    for (const n of [0, 1]) {
      const u = small.data.subarray(4 * n, 4 * n + 4);
      const h = (v: Float64Array): number => {
        const power = Math.exp(dot(u, v) / T);
        return power / (power + OTHERS * 1.7);
      };
      const others = Array.from({ length: OTHERS }, (_, i) => Math.log(1 - h(row(2 + i))));
      expect(found[n]).toBeCloseTo(-Math.log(h(row(n))) - others.reduce((a, b) => a + b, 0), 5);
    }
  });

  it('has the gradient of finite differences', () => {
    const gradients = checkGradients(lossModel(OTHERS), { z: small, t }, { wanted: ['z'] });
    expect(Math.max(...gradients.get('z')!.data.map(Math.abs))).toBeGreaterThan(0.1);
  });
});
