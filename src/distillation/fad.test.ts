import { describe, expect, it } from 'vitest';
import type { ModelProto } from 'onnx-buf';
import { DataType } from '../onnx/dtypes.js';
import { Graph, rewrite } from '../onnx/graph.js';
import { formula } from '../onnx/ops.js';
import { makeTensor, readFloats } from '../onnx/tensor.js';
import type { HostTensor } from '../runtime/engine.js';
import { exposeValue } from '../runtime/trace.js';
import { randomArray } from '../testing/check-gradients.js';
import { blockNet, chainNet, feedOf, lessonRequest, tokenNet } from '../testing/distillation-models.js';
import { gradientModel } from '../testing/gradient-model.js';
import { array, type NdArray } from '../testing/reference/array.js';
import { evaluate } from '../testing/reference/evaluate.js';
import { meanLoss } from '../training/losses.js';
import { trainableParameters } from '../training/parameters.js';
import type { StepResult } from '../training/stepper.js';
import { flowAligned } from './fad.js';
import { adaptiveWeights, curriculum, layerWeights, normalised, selected } from './flow-weights.js';
import type { Lesson, LessonControl, LessonOptions, LessonRequest } from './lesson.js';

const tensorOf = (dims: readonly number[], data: Float32Array): HostTensor => ({ type: 'float32', dims, data });

const BATCH = 2;

const inFloat64 = ({ dims, data }: HostTensor): NdArray => array(dims, Float64Array.from(data as Float32Array));

/** What is fed to the student: samples, and the maps of its units. */
function given({ mapInputs, student }: Lesson, { studentMaps }: LessonRequest): Record<string, NdArray> {
  const fed: Record<string, NdArray> = { x: inFloat64(feedOf(student, BATCH).x!) };
  for (const { unit, inputs } of mapInputs) {
    const { matrix, bias } = studentMaps.get(unit)!;
    fed[inputs.matrix] = array([bias.length, matrix.length / bias.length], Float64Array.from(matrix));
    fed[inputs.bias] = array([bias.length, 1], Float64Array.from(bias));
  }
  return fed;
}

/** Its flow terms by their factors as the only output, held against what the teacher says of the same samples. */
function flowLoss({ student, teacher, terms }: Lesson, factors: readonly number[]): ModelProto {
  const said = evaluate(teacher, { x: inFloat64(feedOf(teacher, BATCH).x!) });
  return rewrite(student, (graph) => {
    const op = formula(graph);
    const flows = terms.flatMap((term, i) => (term.name === 'flow' ? [{ ...term, factor: factors[i]! }] : []));
    const parts = flows.map(({ hint, answer, prepare, factor }) => {
      const { dims, data } = said.get(answer!)!;
      // A row for every sample, which is what is kept.
      const rows = dims[0]!;
      expect(rows).toBe(BATCH);
      const width = data.length / rows;
      const mean = Float32Array.from({ length: width }, (_, i) =>
        Array.from({ length: rows }, (__, n) => data[n * width + i]!).reduce((a, b) => a + b / rows, 0),
      );
      const [shape, values] = prepare ? [[1, ...dims.slice(1)], mean] : [dims, Float32Array.from(data)];
      expect(hint.targetDims).toEqual(shape);
      const batch = { target: tensorOf(shape, values), indices: [] };
      const fed = prepare?.(tensorOf(dims, Float32Array.from(data)), batch);
      expect(fed?.dims ?? shape).toEqual(shape);
      values.forEach((v, k) => expect(fed?.data[k] ?? v).toBeCloseTo(v, 5));
      const target = graph.addInitializer(makeTensor(graph.uniqueName('said'), DataType.FLOAT, shape, values));
      const output = graph.mustGet(hint.value);
      return op('Mul', meanLoss(hint.loss, { graph, output, target, rank: shape.length, temperature: 1 }), factor);
    });
    graph.outputs.length = 0;
    exposeValue(
      graph,
      parts.reduce((sum, part) => op('Add', sum, part)),
    );
    graph.removeDead();
  });
}

const lossOf = (model: ModelProto, fed: Record<string, NdArray>): number =>
  evaluate(model, fed).get(model.graph!.output[0]!.name)!.data[0]!;

/** Gradients of the one output in all that learns. */
function slopesOf(model: ModelProto, fed: Record<string, NdArray>): Map<string, NdArray> {
  const wanted = trainableParameters(new Graph(model)).map(({ name }) => name);
  expect(wanted.length).toBeGreaterThan(3);
  const gradients = gradientModel(model, [fed], { wanted, loss: (_, [loss]) => loss! });
  const found = evaluate(gradients.model, fed);
  return new Map([...gradients.names].map(([name, gradient]) => [name, found.get(gradient)!]));
}

/** Holds the gradient in every tensor against central differences along a random direction, in float64. */
function checkAlongDirections(model: ModelProto, fed: Record<string, NdArray>): number {
  const step = 1e-6;
  let largest = 0;
  for (const [k, [name, slope]] of [...slopesOf(model, fed)].entries()) {
    const way = randomArray(slope.dims, 100 + k).data;
    const start = readFloats(new Graph(model).mustGet(name).initializer!);
    const at = (by: number): number =>
      lossOf(model, {
        ...fed,
        [name]: array(
          slope.dims,
          Float64Array.from(start, (v, i) => v + by * way[i]!),
        ),
      });
    const wanted = (at(step) - at(-step)) / (2 * step);
    const along = slope.data.reduce((sum, v, i) => sum + v * way[i]!, 0);
    largest = Math.max(largest, Math.abs(wanted));
    // Relative to the slope, down to where differences of float64 numbers of size 1 end.
    const off = Math.abs(along - wanted) / Math.max(Math.abs(wanted), 1e-3);
    if (!(off < 1e-6)) throw new Error(`${name}: ${String(along)}, by differences ${String(wanted)}`);
  }
  return largest;
}

const cases: [string, ModelProto, ModelProto, Partial<LessonOptions>][] = [
  ['blocks', blockNet(3, 2, 1), blockNet(2, 2, 2), {}],
  ['every sample of blocks', blockNet(3, 2, 1), blockNet(2, 2, 2), { perSample: true }],
  ['along the depth', blockNet(3, 2, 1), blockNet(2, 2, 2), { flow: 'integrated' }],
  ['along the depth, every sample', blockNet(3, 2, 1), blockNet(2, 2, 2), { flow: 'integrated', perSample: true }],
  ['layers of other shapes, by fed maps', chainNet(3, 1), chainNet(4, 2), {}],
  ['blocks of tokens', tokenNet(3, 4, 1), tokenNet(2, 3, 2), {}],
];

describe('the gradient of the flow terms', () => {
  it.each(cases)('equals differences in float64 and is not zero: %s', async (_, teacher, student, options) => {
    const request = await lessonRequest(teacher, student, options);
    const lesson = flowAligned(request);
    const model = flowLoss(lesson, lesson.control.factors(0).terms);
    expect(checkAlongDirections(model, given(lesson, request))).toBeGreaterThan(0.01);
  });

  it.each<[string, ModelProto, Partial<LessonOptions>]>([
    ['blocks', blockNet(2, 2, 1), {}],
    ['every sample', blockNet(2, 2, 1), { perSample: true }],
    ['along the depth', blockNet(2, 2, 1), { flow: 'integrated' }],
    ['tokens', tokenNet(2, 4, 1), {}],
  ])('is 0 for identical networks: %s', async (_, net, options) => {
    const request = await lessonRequest(net, net, options);
    const lesson = flowAligned(request);
    const model = flowLoss(lesson, lesson.control.factors(0).terms);
    expect(lossOf(model, given(lesson, request))).toBeLessThan(1e-12);
    const found = slopesOf(model, given(lesson, request));
    for (const { data } of found.values()) for (const v of data) expect(Math.abs(v)).toBeLessThan(1e-6);
  });

  it('is finite where a unit changes nothing, in the student and in the teacher', async () => {
    const still = rewrite(blockNet(2, 2, 2), (graph) => {
      // The second convolution of the first block gives zeros.
      const conv = graph.nodes.filter((node) => node.is('Conv'))[2]!;
      for (const value of conv.inputs.slice(1))
        graph.setInitializer(
          value!,
          makeTensor(
            value!.name,
            DataType.FLOAT,
            value!.initializer!.dims.map(Number),
            new Float32Array(value!.initializer!.dims.map(Number).reduce((a, b) => a * b, 1)),
          ),
        );
    });
    for (const [teacher, student] of [
      [blockNet(2, 2, 1), still],
      [still, blockNet(2, 2, 1)],
      [still, still],
    ] as const) {
      const request = await lessonRequest(teacher, student);
      const lesson = flowAligned(request);
      expect(teacher === still ? known(request)[0] : 0).toBeLessThan(1e-5);
      const { terms } = lesson.control.factors(0);
      for (const factor of terms) expect(Number.isFinite(factor)).toBe(true);
      const model = flowLoss(lesson, terms);
      expect(Number.isFinite(lossOf(model, given(lesson, request)))).toBe(true);
      const found = slopesOf(model, given(lesson, request));
      for (const { data } of found.values()) for (const v of data) expect(Number.isFinite(v)).toBe(true);
    }
  });
});

describe('flowAligned', () => {
  it('adds answers beside the labels, and puts them in their place without any', async () => {
    const [teacher, student] = [blockNet(3, 2, 1), blockNet(2, 2, 2)];
    const labelled = flowAligned(await lessonRequest(teacher, student));
    expect(labelled.main).toBe('task');
    expect(labelled.terms.map(({ name, kept }) => [name, kept])).toEqual([
      ['answers', true],
      ['flow', true],
      ['flow', true],
    ]);
    const alone = flowAligned(await lessonRequest(teacher, student, { labelled: false }));
    expect(alone.main).toBe('answers');
    expect(alone.terms.map(({ name }) => name)).toEqual(['flow', 'flow']);
    const [first, second] = [labelled.control.factors(0), alone.control.factors(0)];
    expect(second.main).toBeCloseTo(first.main + first.terms[0]!, 12);
    expect(second.terms).toEqual(first.terms.slice(1));
  });

  it('leaves out units whose map could not be fitted, and refuses when none is left', async () => {
    const request = await lessonRequest(chainNet(3, 1), chainNet(4, 2));
    expect(flowAligned(request).pairs).toEqual(request.pairs);
    const fewer = flowAligned({ ...request, studentMaps: new Map() });
    expect(fewer.pairs).toEqual(request.pairs.slice(1));
    expect(fewer.mapInputs).toEqual([]);
    const none = { ...request, studentMaps: new Map(), pairs: request.pairs.slice(0, 1) };
    expect(() => flowAligned(none)).toThrow(/No layers .* have a flow that could be aligned/);
  });
});

/** A step that shows the flows of the student's units in some parts of a batch. */
const shown = (...parts: readonly (readonly number[])[]): StepResult => ({
  ...{ loss: 0, hints: [], main: 0, norm: 0, outputs: [] },
  observed: parts.map((flows) => flows.map((v) => scalar([v]))),
});
const scalar = (values: readonly number[]): HostTensor => ({
  ...{ type: 'float32', dims: [values.length] },
  data: Float32Array.from(values),
});
/** What the teacher says: answers, and one value per sample and pair. */
const saying = (flows: readonly number[]): HostTensor[] => [
  scalar([0]),
  ...flows.map((v) => scalar([v - 0.25, v + 0.25])),
];

async function controlOf(
  options: Partial<LessonOptions> = {},
): Promise<{ control: LessonControl; request: LessonRequest }> {
  const request = await lessonRequest(blockNet(4, 2, 1), blockNet(4, 2, 2), options);
  return { request, control: flowAligned(request).control };
}

/** Flows of a teacher all of whose units have one. */
const known = ({ teacherFlow }: LessonRequest): readonly number[] => teacherFlow as readonly number[];

const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
const THEIRS = [0.5, 1, 1.5, 2];
const OWN = [1, 1, 0.5, 1.75];

describe('the control of the factors', () => {
  it('weighs by the flows, which it follows with a memory of 0.9', async () => {
    const { control, request } = await controlOf();
    const base = layerWeights(known(request));
    const check = (teacher: readonly number[], student: readonly number[]): void => {
      const { task, answers, flow } = adaptiveWeights(mean(teacher), mean(student));
      const found = control.factors(0.3);
      expect(found.main).toBeCloseTo(task, 9);
      [answers, ...base.map((w) => flow * w)].forEach((v, i) => {
        expect(found.terms[i]).toBeCloseTo(v, 9);
      });
    };
    check(known(request), known(request));
    control.observe!(shown(OWN), [saying(THEIRS)], []);
    const blended = known(request).map((v, l) => 0.9 * v + 0.1 * THEIRS[l]!);
    check(blended, OWN);
    control.observe!(shown([0, 0, 0, 0]), [saying(THEIRS)], []);
    check(
      blended.map((v, l) => 0.9 * v + 0.1 * THEIRS[l]!),
      OWN.map((v) => 0.9 * v),
    );
  });

  it('takes the mean over the parts of an accumulated batch', async () => {
    const [one, two] = [(await controlOf()).control, (await controlOf()).control];
    one.observe!(shown(OWN), [saying(THEIRS)], []);
    two.observe!(
      shown(
        OWN.map((v) => v - 0.25),
        OWN.map((v) => v + 0.25),
      ),
      [saying(THEIRS.map((v) => v - 0.5)), saying(THEIRS.map((v) => v + 0.5))],
      [],
    );
    expect(two.notes!()).toEqual(one.notes!());
  });

  it('brings the gradient of the flow to a tenth of that of the task, within bounds, every 100 updates', async () => {
    const { control } = await controlOf();
    expect([0, 1, 99, 100, 200].map((steps) => control.probes!(steps) !== undefined)).toEqual([
      true,
      false,
      false,
      true,
      true,
    ]);
    const { task, part } = control.probes!(0)!;
    expect(task).toEqual({ main: 1, terms: [0, 0, 0, 0, 0] });
    expect([part.main, part.terms[0]]).toEqual([0, 0]);
    expect(part.terms.reduce((a, b) => a + b)).toBeCloseTo(1, 9);
    const before = control.factors(0.9);
    for (const [norms, factor] of [
      [[3, 0.05], 6],
      [[3, 1e-6], 100],
      [[3, 0], 100],
      [[1e-3, 1], 0.1],
    ] as const) {
      control.balance!(norms[0], norms[1]);
      const found = control.factors(0.9);
      expect(found.main).toBe(before.main);
      expect(found.terms[0]).toBe(before.terms[0]);
      found.terms.slice(1).forEach((v, i) => {
        expect(v).toBeCloseTo(before.terms[i + 1]! * factor, 9);
      });
    }
  });

  it('compares with the gradient of the answers where there are no labels', async () => {
    const { control } = await controlOf({ labelled: false } as Partial<LessonOptions>);
    const { task, part } = control.probes!(0)!;
    expect(task).toEqual({ main: 1, terms: [0, 0, 0, 0] });
    expect(part.main).toBe(0);
  });

  it('chooses layers anew after every tenth update where it selects', async () => {
    const { control, request } = await controlOf({ select: 'selective' });
    const base = layerWeights(known(request));
    let teacher: readonly number[] = known(request);
    let student: readonly number[] | undefined;
    for (let step = 1; step <= 20; step++) {
      const now = OWN.map((v) => v + step / 10);
      control.observe!(shown(now), [saying(THEIRS)], []);
      teacher = teacher.map((v, l) => 0.9 * v + 0.1 * THEIRS[l]!);
      student = student ? student.map((v, l) => 0.9 * v + 0.1 * now[l]!) : now;
      if (step === 9) expect(control.weights!()).toEqual(normalised(base));
      if (step % 10 !== 0) continue;
      const mask = selected(teacher, student);
      expect(mask).toContain(0);
      control.weights!().forEach((w, l) => {
        expect(w).toBeCloseTo(normalised(base.map((v, k) => v * mask[k]!))[l]!, 9);
      });
    }
  });

  it('goes by the stages of the curriculum, with weights of sum 1 in what counts', async () => {
    const { control, request } = await controlOf({ select: 'curriculum' });
    const base = layerWeights(known(request));
    const { flow } = adaptiveWeights(mean(known(request)), mean(known(request)));
    for (const share of [0, 0.2, 0.3, 0.45, 0.5, 1]) {
      const { mask, strength } = curriculum([0, 1 / 3, 2 / 3, 1], share);
      const wanted = normalised(base.map((w, l) => w * mask[l]!)).map((w) => flow * strength * w);
      control
        .factors(share)
        .terms.slice(1)
        .forEach((v, l) => {
          expect(v).toBeCloseTo(wanted[l]!, 9);
        });
    }
  });

  it('goes on from its notes as if nothing had been between', async () => {
    const options = { select: 'selective' } as const;
    const [one, two] = [(await controlOf(options)).control, (await controlOf(options)).control];
    const step = (control: LessonControl, k: number): void => {
      control.observe!(shown(OWN.map((v) => v + k)), [saying(THEIRS.map((v) => v * (1 + k)))], []);
    };
    one.balance!(1, 0.3);
    for (let k = 0; k < 13; k++) step(one, k);
    two.restore!(JSON.parse(JSON.stringify(one.notes!())) as ReturnType<NonNullable<LessonControl['notes']>>);
    for (let k = 0; k < 9; k++) {
      step(one, k);
      step(two, k);
      expect(two.factors(0.5)).toEqual(one.factors(0.5));
    }
  });

  it('has one factor for flows along the depth, which selection and stages leave whole', async () => {
    const { control, request } = await controlOf({ flow: 'integrated' });
    const { answers, flow } = adaptiveWeights(mean(known(request)), mean(known(request)));
    expect(control.factors(0).terms).toEqual([answers, flow]);
  });
});
