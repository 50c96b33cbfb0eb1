import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { emptyModel, Graph } from '../onnx/graph.js';
import { DataType } from '../onnx/dtypes.js';
import { tensorInfo } from '../onnx/value-info.js';
import type { HostTensor } from '../runtime/engine.js';
import { checkGradients, randomArray } from '../testing/check-gradients.js';
import { array } from '../testing/reference/array.js';
import { evaluate } from '../testing/reference/evaluate.js';
import { declareOutput } from '../testing/tiny-models.js';
import { LOSSES } from '../training/losses.js';
import type { StepResult } from '../training/stepper.js';
import { jointControl, klAtFedTemperature, nextLayers, variationalControl } from './flow-weighting.js';
import type { LessonControl, Notes } from './lesson.js';

const tensor = (dims: readonly number[], data: readonly number[]): HostTensor => ({
  ...{ type: 'float32', dims },
  data: Float32Array.from(data),
});

/** Answers 0.2, layers with shares 0.1 and 0.3; what it was restored from is kept. */
function flowing(): LessonControl & { restored: Notes[]; observed: number } {
  return {
    restored: [],
    observed: 0,
    factors: () => ({ main: 0.5, terms: [0.2, 0.1, 0.3] }),
    notes: () => ({ teacher: [0.4, 0.2], student: [0.4, 0.1], own: [3] }),
    observe() {
      this.observed++;
    },
    restore(notes) {
      this.restored.push(notes);
    },
    weights: () => [0.25, 0.75],
  };
}

const result = (more: Partial<StepResult> = {}): StepResult => ({
  ...{ loss: 1, hints: [0.5, 0.02, 0.04], main: 2, observed: [[]], norm: 1 },
  outputs: [tensor([2, 2], [0, 3, 0, 3])],
  ...more,
});
const batch = { target: tensor([2, 2], [0, 1, 0, 1]), indices: [0, 1] };

describe('nextLayers', () => {
  it('gives layers with a gap more, the less the closer the student is', () => {
    // Far: (1 + 0) and (1 + 1/2); near: half of both. Rescaled to mean 1, both are 0.8 and 1.2; averaged with 1 and 1.
    for (const near of [0, 1]) {
      const [a, b] = nextLayers([1, 1], [0.4, 0.2], [0.4, 0.1], near);
      expect(a).toBeCloseTo(0.9, 9);
      expect(b).toBeCloseTo(1.1, 9);
    }
    // 1.999 stays below the bound of 2.
    expect(nextLayers([1, 1], [1000, 1], [1, 1], 0)[0]).toBeCloseTo((1.999 / 1.4995 + 1) / 2, 6);
  });

  it('keeps a mean of 1', () => {
    const flow = fc.double({ min: 0, max: 2, noNaN: true });
    fc.assert(
      fc.property(
        fc.array(fc.tuple(flow, flow), { minLength: 1, maxLength: 9 }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        (pairs, near) => {
          const weights = nextLayers(
            pairs.map(() => 1),
            pairs.map(([t]) => t),
            pairs.map(([, s]) => s),
            near,
          );
          expect(weights.reduce((a, b) => a + b, 0) / weights.length).toBeCloseTo(1, 9);
          expect(Math.min(...weights)).toBeGreaterThan(0.5);
        },
      ),
    );
  });
});

describe('jointControl', () => {
  const state = { labelled: true, temperature: 4, pairs: 2, featured: false, layered: true };
  // The teacher is right on both and the student agrees: closeness is 1 less the difference of confidence.
  const teacher = tensor([2, 2], [0, 1, 0, 1]);
  const difference = 1 / (1 + Math.exp(-3)) - 1 / (1 + Math.exp(-1));
  const near = (0.4 + 0.3 * (1 - difference)) / 0.7;

  it('looks at the student every ten updates and reshapes layers without changing what the flow counts', () => {
    const inner = flowing();
    const { control, temperature } = jointControl(inner, state);
    for (let step = 1; step < 10; step++) control.observe!(result(), [[teacher]], [batch]);
    expect(temperature()).toBe(4);
    expect(control.factors(0.5)).toEqual({ main: 0.5, terms: [0.2, expect.closeTo(0.1, 9), expect.closeTo(0.3, 9)] });
    control.observe!(result(), [[teacher]], [batch]);
    expect(inner.observed).toBe(10);
    expect(temperature()).toBeCloseTo(4 * (1 + 0.2 * (1 - near)), 6);
    const [answers, a, b] = control.factors(0.5).terms;
    expect(answers).toBe(0.2);
    expect(a! + b!).toBeCloseTo(0.4, 9);
    expect(b! / a!).toBeCloseTo((0.3 * 1.1) / (0.1 * 0.9), 6);
    expect(control.weights!()[1]).toBeCloseTo((0.75 * 1.1) / (0.75 * 1.1 + 0.25 * 0.9), 6);
  });

  it('goes on from its notes as if it had not been interrupted', () => {
    const [whole, first] = [jointControl(flowing(), state), jointControl(flowing(), state)];
    const see = ({ control }: typeof whole, times: number): void => {
      for (let i = 0; i < times; i++) control.observe!(result(), [[teacher]], [batch]);
    };
    see(whole, 20);
    see(first, 13);
    const inner = flowing();
    const second = jointControl(inner, state);
    second.control.restore!(first.control.notes!());
    see(second, 7);
    expect(inner.restored[0]).toMatchObject({ own: [3] });
    expect(second.temperature()).toBe(whole.temperature());
    expect(second.control.factors(0)).toEqual(whole.control.factors(0));
  });

  it('leaves a single term of the flow alone, and takes the targets for the answers without labels', () => {
    const { control, temperature } = jointControl(
      { ...flowing(), factors: () => ({ main: 0.7, terms: [0.3] }) },
      { ...state, labelled: false, layered: false },
    );
    for (let i = 0; i < 10; i++) control.observe!(result(), [[]], [{ ...batch, target: teacher }]);
    expect(control.factors(0)).toEqual({ main: 0.7, terms: [0.3] });
    expect(temperature()).toBeCloseTo(4 * (1 + 0.2 * (1 - near)), 6);
  });
});

describe('variationalControl', () => {
  const inner = (): LessonControl => ({ factors: () => ({ main: 1, terms: [1, 0.25, 0.75] }) });

  it('comes to count every term the inverse of its loss, within its bounds', () => {
    const control = variationalControl(inner(), true);
    expect(control.factors(0)).toEqual({ main: 1, terms: [1, 0.25, 0.75] });
    for (let i = 0; i < 4000; i++) {
      control.factors(0);
      control.observe!(result({ hints: [0.5, 0.4, 0.8] }), [[]], [batch]);
    }
    const flow = 0.25 * 0.4 + 0.75 * 0.8;
    const { main, terms } = control.factors(0);
    expect(main).toBe(1);
    expect(terms[0]).toBeCloseTo(1 / 0.5, 3);
    expect(terms[1]).toBeCloseTo(0.25 / flow, 3);
    expect(terms[2]).toBeCloseTo(0.75 / flow, 3);
    for (let i = 0; i < 4000; i++) control.observe!(result({ hints: [1e6, 1e-9, 1e-9] }), [[]], [batch]);
    const [answers, first] = control.factors(0).terms;
    expect(answers).toBeCloseTo(Math.exp(-4), 9);
    expect(first! / 0.25).toBeCloseTo(Math.exp(4), 6);
  });

  it('weighs the answers that stand in for labels, and remembers what it learned', () => {
    const unlabelled = { factors: () => ({ main: 2, terms: [0.5, 0.5] }) };
    const control = variationalControl(unlabelled, false);
    control.factors(0);
    for (let i = 0; i < 9; i++) control.observe!(result({ main: 3, hints: [0.1, 0.3] }), [[]], [batch]);
    const { main, terms } = control.factors(0);
    expect(main).toBeLessThan(1);
    expect(terms[0]).toBeGreaterThan(0.5);
    const again = variationalControl(unlabelled, false);
    again.restore!(control.notes!());
    expect(again.factors(0)).toEqual({ main, terms });
  });
});

describe('klAtFedTemperature', () => {
  const model = (loss: typeof klAtFedTemperature, columns: number, temperature: number) => {
    const graph = new Graph(emptyModel(17));
    const output = graph.addInput(tensorInfo('z', DataType.FLOAT, [3, 5]));
    const target = graph.addInput(tensorInfo('t', DataType.FLOAT, [3, columns]));
    declareOutput(graph, loss({ graph, output, target, rank: 2, temperature }), [3]);
    return graph.toModel();
  };
  const [z, t] = [randomArray([3, 5], 1), randomArray([3, 5], 2)];
  const fed = array(
    [3, 6],
    [0, 1, 2].flatMap((n) => [...t.data.subarray(5 * n, 5 * n + 5), 2.5]),
  );

  it('is the divergence at the temperature of the target', () => {
    // What the options say does not matter.
    const [own, plain] = [model(klAtFedTemperature, 6, 9), model(LOSSES.kl, 5, 2.5)];
    const found = evaluate(own, { z, t: fed }).get(own.graph!.output[0]!.name)!;
    const expected = evaluate(plain, { z, t }).get(plain.graph!.output[0]!.name)!;
    expect(found.dims).toEqual([3]);
    found.data.forEach((v, n) => expect(v).toBeCloseTo(expected.data[n]!, 9));
  });

  it('has the gradient of finite differences', () => {
    checkGradients(model(klAtFedTemperature, 6, 1), { z, t: fed }, { wanted: ['z'] });
  });
});
