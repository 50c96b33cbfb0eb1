/** The losses of generative distillation against their formulas, and what lessons are made of them. */
import { describe, expect, it } from 'vitest';
import type { ModelProto } from 'onnx-buf';
import { DataType } from '../onnx/dtypes.js';
import { emptyModel, Graph } from '../onnx/graph.js';
import { makeTensor } from '../onnx/tensor.js';
import { tensorInfo } from '../onnx/value-info.js';
import { checkGradients, randomArray } from '../testing/check-gradients.js';
import { blockNet, lessonRequest } from '../testing/distillation-models.js';
import { Builder } from '../testing/flow-models.js';
import { gradientModel } from '../testing/gradient-model.js';
import { reduce } from '../onnx/ops.js';
import type { NdArray } from '../testing/reference/array.js';
import { evaluate } from '../testing/reference/evaluate.js';
import type { Loss } from '../training/losses.js';
import { adversarial, generative, posteriorDivergence, priorDivergence } from './generative.js';
import type { LessonRequest, Side } from './lesson.js';
import { findDistillationMethod, lessonBy } from './methods.js';
import { findVaeOutputs } from './vae-outputs.js';

function lossModel(loss: Loss, dims: readonly number[], matrices: Record<string, NdArray> = {}): ModelProto {
  const graph = new Graph(emptyModel(17));
  const [output, target] = ['output', 'target'].map((name) => graph.addInput(tensorInfo(name, DataType.FLOAT, dims)));
  for (const [name, { dims: shape, data }] of Object.entries(matrices))
    graph.addInitializer(makeTensor(name, DataType.FLOAT, shape, Float32Array.from(data)));
  const value = loss({ graph, output: output!, target: target!, rank: dims.length, temperature: 1 });
  value.info = tensorInfo(value.name, DataType.FLOAT, [dims[0]!]);
  graph.outputs.push(value);
  return graph.toModel();
}

function valuesOf(model: ModelProto, given: Record<string, NdArray>): number[] {
  return [...evaluate(model, given).get(model.graph!.output[0]!.name)!.data];
}

const [output, target] = [randomArray([3, 4], 1), randomArray([3, 4], 2)];
const row = ({ data }: NdArray, n: number): number[] => [...data.subarray(4 * n, 4 * n + 4)];

/** KL(N(m, e^v) || N(p, e^q)) by the textbook, with standard deviations. */
function divergence(m: number, v: number, p: number, q: number): number {
  const [s, t] = [Math.exp(v / 2), Math.exp(q / 2)];
  return Math.log(t / s) + (s * s + (m - p) ** 2) / (2 * t * t) - 0.5;
}

describe('priorDivergence', () => {
  it('is the divergence from N(0, 1), per element of a sample, with its gradient', () => {
    const model = lossModel(priorDivergence(7), [3, 4]);
    valuesOf(model, { output, target }).forEach((v, n) => {
      const [a, b, c, d] = row(output, n) as [number, number, number, number];
      expect(v).toBeCloseTo((divergence(a, c, 0, 0) + divergence(b, d, 0, 0)) / 7, 7);
    });
    checkGradients(model, { output, target }, { wanted: ['output'] });
  });
});

describe('posteriorDivergence', () => {
  it("is the divergence of the target's distribution from the output's, with its gradient, and 0 for equal ones", () => {
    const model = lossModel(posteriorDivergence, [3, 4]);
    valuesOf(model, { output, target }).forEach((v, n) => {
      const [a, b, c, d] = row(output, n) as [number, number, number, number];
      const [e, f, g, h] = row(target, n) as [number, number, number, number];
      expect(v).toBeCloseTo((divergence(e, g, a, c) + divergence(f, h, b, d)) / 2, 7);
    });
    checkGradients(model, { output, target }, { wanted: ['output'] });
    for (const v of valuesOf(model, { output: target, target })) expect(v).toBeCloseTo(0, 9);
  });
});

describe('adversarial', () => {
  const [inner, outer] = [randomArray([4, 5], 3), randomArray([5, 1], 4)];
  const logit = (x: readonly number[], first: ArrayLike<number> = inner.data): number => {
    let sum = 0;
    for (let j = 0; j < 5; j++) {
      const h = x.reduce((a, v, i) => a + v * first[i * 5 + j]!, 0);
      sum += outer.data[j]! * Math.max(h, 0.2 * h);
    }
    return sum;
  };
  const softplus = (v: number): number => Math.log1p(Math.exp(v));
  const model = lossModel(adversarial({ inner: 'inner', outer: 'outer' }), [3, 4], { inner, outer });

  it('is what the discriminator and the generator lose', () => {
    valuesOf(model, { output, target }).forEach((v, n) => {
      const [own, theirs] = [logit(row(output, n)), logit(row(target, n))];
      expect(v).toBeCloseTo(softplus(-theirs) + softplus(own) + softplus(-own), 4);
    });
  });

  it('moves each by its own part only', () => {
    const { model: withGradients, names } = gradientModel(model, [{ output, target }], {
      wanted: ['output', 'inner'],
      loss: (graph, [losses]) => reduce(graph, 'ReduceSum', losses!),
    });
    const found = evaluate(withGradients, { output, target });
    const step = 1e-5;
    const slope = (f: (by: number) => number): number => (f(step) - f(-step)) / (2 * step);
    const toOutput = found.get(names.get('output')!)!.data;
    for (let i = 0; i < 4; i++)
      expect(toOutput[4 + i]).toBeCloseTo(
        slope((by) => softplus(-logit(row(output, 1).with(i, row(output, 1)[i]! + by)))),
        4,
      );
    const toInner = found.get(names.get('inner')!)!.data;
    for (const at of [0, 7, 19]) {
      const wanted = slope((by) => {
        const moved = Float64Array.from(inner.data, (v, i) => (i === at ? v + by : v));
        return [0, 1, 2].reduce(
          (sum, n) => sum + softplus(-logit(row(target, n), moved)) + softplus(logit(row(output, n), moved)),
          0,
        );
      });
      expect(toInner[at]).toBeCloseTo(wanted, 4);
    }
  });
});

/** image [6] -> reconstruction, mu [2], log_var [2]. */
function autoencoder(seed: number, hidden: number): Side & { model: ModelProto } {
  const b = new Builder(17, seed);
  const x = b.op('Relu', [b.dense(b.input('x', [6]), 6, hidden)]);
  const [mean, log] = [b.dense(x, hidden, 2), b.dense(x, hidden, 2)];
  const image = b.dense(mean, 2, 6);
  const model = b.done(image, mean, log);
  return { model, answers: [image.name, mean.name, log.name], classes: undefined, features: undefined, units: [] };
}

async function vaeRequest(): Promise<LessonRequest> {
  const asked = await lessonRequest(blockNet(1, 2, 1), blockNet(1, 2, 2));
  return {
    ...asked,
    ...{ teacher: autoencoder(1, 5), student: autoencoder(2, 3), pairs: [], generation: { kind: 'vae' } },
    ...{ answerDims: [1, 6], labelled: true },
  };
}

describe('a lesson for a VAE', () => {
  it('holds the latent distribution against the prior with every method, as much as the reconstruction counts', async () => {
    const request = await vaeRequest();
    for (const name of ['plain', 'kd', 'generative']) {
      const lesson = lessonBy(findDistillationMethod(name)!, request);
      const { main, terms } = lesson.control.factors(0);
      expect([lesson.main, lesson.terms.at(-1)!.name, terms.at(-1)]).toEqual(['task', 'prior', main]);
      expect(terms).toHaveLength(lesson.terms.length);
    }
    const names = (name: string): string[] =>
      lessonBy(findDistillationMethod(name)!, request).terms.map((term) => term.name);
    expect(names('plain')).toEqual(['prior']);
    expect(names('kd')).toEqual(['answers', 'answers', 'answers', 'prior']);
    expect(names('generative')).toEqual(['answers', 'posterior', 'prior']);
  });
});

describe('generative', () => {
  it('is refused where nothing says how samples are made', async () => {
    const request = await vaeRequest();
    expect(() => generative({ ...request, generation: undefined })).toThrow(/Nothing says how the models make samples/);
  });

  it('for a generator goes by distance and discriminator, and not by the main loss', async () => {
    const request: LessonRequest = { ...(await vaeRequest()), labelled: false, generation: { kind: 'generator' } };
    const lesson = generative({
      ...request,
      teacher: { ...request.teacher, answers: request.teacher.answers.slice(0, 1) },
      student: { ...request.student, answers: request.student.answers.slice(0, 1) },
    });
    expect(lesson.terms.map(({ name }) => name)).toEqual(['distance', 'adversarial']);
    expect(lesson.control.factors(0)).toEqual({ main: 0, terms: [1, 0.001] });
    expect(lesson.parameters.map(({ dims }) => dims)).toEqual([
      [6, 128],
      [128, 1],
    ]);
  });
});

describe('findVaeOutputs', () => {
  const dims = new Map([
    ['image', [1, 2, 3]],
    ['mu', [1, 4]],
    ['logvar', [1, 4]],
    ['other', [1, 5]],
  ]);
  const feeds = { x: { type: 'float32' as const, dims: [1, 6], data: new Float32Array(6) } };

  it('goes by names and shapes, or by the order that is given', () => {
    const wanted = { outputs: ['image', 'mu', 'logvar'], input: 'x' };
    expect(findVaeOutputs(['logvar', 'image', 'mu'], dims, feeds, false)).toEqual(wanted);
    expect(findVaeOutputs(['image', 'logvar', 'mu'], dims, feeds, true)?.outputs).toEqual(['image', 'logvar', 'mu']);
  });

  it('finds none where shapes do not fit', () => {
    expect(findVaeOutputs(['other', 'mu', 'logvar'], dims, feeds, false)).toBeUndefined();
    expect(findVaeOutputs(['image', 'mu'], dims, feeds, false)).toBeUndefined();
    expect(findVaeOutputs(['image', 'mu', 'other'], dims, feeds, true)).toBeUndefined();
  });
});
