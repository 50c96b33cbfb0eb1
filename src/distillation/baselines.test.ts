import { describe, expect, it } from 'vitest';
import type { ModelProto } from 'onnx-buf';
import { Graph, rewrite } from '../onnx/graph.js';
import { readFloats } from '../onnx/tensor.js';
import type { Feeds, HostTensor } from '../runtime/engine.js';
import { exposeOnly } from '../runtime/trace.js';
import {
  blockNet,
  chainNet,
  CLASSES,
  feedOf,
  IMAGE,
  lessonRequest,
  TOKENS,
  tokenNet,
} from '../testing/distillation-models.js';
import { run } from '../testing/graph-writing.js';
import { openTraining, samples } from '../testing/tiny-training.js';
import { trainableParameters } from '../training/parameters.js';
import type { StepResult } from '../training/stepper.js';
import { answersOnly, attentionTransfer, contrastive, featureHints, plain, relational } from './baselines.js';
import type { Lesson, LessonRequest } from './lesson.js';
import { DISTILLATION_METHODS, findDistillationMethod } from './methods.js';
import type { FlowUnit } from './units.js';

const BATCH = 6;
const LABELS = Array.from({ length: BATCH }, (_, n) => n % CLASSES);
const oneHot: HostTensor = {
  ...{ type: 'float32', dims: [BATCH, CLASSES] },
  data: Float32Array.from({ length: BATCH * CLASSES }, (_, i) =>
    Number(i % CLASSES === LABELS[Math.floor(i / CLASSES)]),
  ),
};

/** Values of a model for the batch. */
async function valuesOf(model: ModelProto, names: readonly string[]): Promise<HostTensor[]> {
  const open = rewrite(model, (graph) => {
    exposeOnly(
      graph,
      [...new Set(names)].map((name) => graph.mustGet(name)),
    );
  });
  const results = await run(open, feedOf(model, BATCH));
  return names.map((name) => results[name]!);
}

interface Steps {
  readonly first: StepResult;
  readonly last: StepResult;
  /** How much each of the lesson's own parameters has moved. */
  readonly moved: number[];
}

/** Steps of SGD on one batch with the factors of the lesson. */
async function steps(lesson: Lesson, { student, teacher }: LessonRequest, count = 1): Promise<Steps> {
  const own = trainableParameters(new Graph(student.model));
  const parameters = [...own, ...lesson.parameters];
  const isImage = feedOf(student.model, 1).x!.dims.length === 4;
  const { heard = [] } = lesson;
  const heardFeeds = (of: (size: number, i: number) => HostTensor): Feeds =>
    Object.fromEntries(heard.flatMap(({ input }, i) => (input ? [[input.name, of(input.size, i)]] : [])));
  const { stepper } = await openTraining(
    lesson.student,
    isImage ? IMAGE : TOKENS,
    {
      ...{ loss: lesson.main === 'task' ? 'cross-entropy' : 'kl', output: student.answers[0]!, parameters },
      ...{ hints: lesson.terms.map(({ hint }) => hint), observed: lesson.observed, batchSize: BATCH, temperature: 4 },
    },
    (rows) => heardFeeds((size) => samples([size], rows, 1)),
  );
  const asked = [...lesson.terms, ...heard].flatMap(({ answer }) => answer ?? []);
  const said = await valuesOf(lesson.teacher, [teacher.answers[0]!, ...asked]);
  const target = lesson.main === 'task' ? oneHot : said[0]!;
  const batch = { target, indices: Array.from({ length: BATCH }, (_, n) => n) };
  const { main, terms } = lesson.control.factors(0);
  const input = {
    feeds: { ...feedOf(student.model, BATCH), ...heardFeeds((_, i) => said[1 + lesson.terms.length + i]!) },
    target,
    factor: main,
    hints: lesson.terms.map(({ prepare }, i) => {
      const answer = said[i + 1]!;
      return { target: prepare?.(answer, batch) ?? answer, factor: terms[i]! };
    }),
  };
  const before = stepper.vectors.parameters.slice();
  const results: StepResult[] = [];
  for (let k = 0; k < count; k++) results.push(await stepper.step([input], 0.02));
  const after = stepper.vectors.parameters;
  let at = own.reduce((sum, { size }) => sum + size, 0);
  const moved = lesson.parameters.map(({ size }) => {
    const from = at;
    at += size;
    return Math.max(...after.subarray(from, at).map((v, i) => Math.abs(v - before[from + i]!)));
  });
  await stepper.release();
  return { first: results[0]!, last: results.at(-1)!, moved };
}

const rowsOf = ({ dims, data }: HostTensor): number[][] => {
  const width = data.length / dims[0]!;
  return Array.from({ length: dims[0]! }, (_, n) => [...(data as Float32Array).subarray(n * width, (n + 1) * width)]);
};
const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);
const mean = (values: readonly number[]): number => sum(values) / values.length;
const norm = (values: readonly number[]): number => Math.sqrt(sum(values.map((v) => v * v)));
const softmax = (row: readonly number[], t = 1): number[] => {
  const powers = row.map((v) => Math.exp(v / t));
  return powers.map((p) => p / sum(powers));
};

/** By hand: cross-entropy with the labels, and T^2 KL of the teacher's answers, T = 4. */
async function byHand({ student, teacher }: LessonRequest): Promise<{ task: number; answers: number }> {
  const [own, theirs] = [
    (await valuesOf(student.model, [student.answers[0]!]))[0]!,
    (await valuesOf(teacher.model, [teacher.answers[0]!]))[0]!,
  ].map(rowsOf) as [number[][], number[][]];
  return {
    task: mean(own.map((row, n) => -Math.log(softmax(row)[LABELS[n]!]!))),
    answers: mean(
      own.map((row, n) => {
        const [p, q] = [softmax(theirs[n]!, 4), softmax(row, 4)];
        return 16 * sum(p.map((v, c) => v * Math.log(v / q[c]!)));
      }),
    ),
  };
}

/** The mean of [N, C, H, W] over blocks of positions, as [n][c][position]. */
function pooled(tensor: HostTensor, side: number): number[][][] {
  const [, channels, height] = tensor.dims as [number, number, number];
  const step = height / side;
  return rowsOf(tensor).map((row) =>
    Array.from({ length: channels }, (_, c) =>
      Array.from({ length: side * side }, (__, p) => {
        const [top, left] = [Math.floor(p / side) * step, (p % side) * step];
        return mean(
          Array.from({ length: step * step }, (___, k) => {
            const [y, x] = [top + Math.floor(k / step), left + (k % step)];
            return row[(c * height + y) * height + x]!;
          }),
        );
      }),
    ),
  );
}

/** Units of a pair on the smaller grid of the two: student's, teacher's. */
async function pairValues(request: LessonRequest, pair: number): Promise<[number[][][], number[][][]]> {
  const { student: s, teacher: t } = request.pairs[pair]!;
  const [own, theirs] = [request.student.units[s]!, request.teacher.units[t]!];
  const side = Math.min(own.dims[1]!, theirs.dims[1]!);
  return [
    pooled((await valuesOf(request.student.model, [own.value]))[0]!, side),
    pooled((await valuesOf(request.teacher.model, [theirs.value]))[0]!, side),
  ];
}

const TEACHER = blockNet(3, 3, 1);
const STUDENT = blockNet(2, 2, 2);
const request = (more: { labelled?: boolean } = {}, teacher = TEACHER, student = STUDENT): Promise<LessonRequest> =>
  lessonRequest(teacher, student, { batchSize: BATCH, ...more });

describe('kd', () => {
  it('is 0.1 cross-entropy + 0.9 T^2 KL', async () => {
    const asked = await request();
    const { task, answers } = await byHand(asked);
    const { first } = await steps(answersOnly(asked), asked);
    expect(first.main).toBeCloseTo(task, 4);
    expect(first.hints[0]).toBeCloseTo(answers, 4);
    expect(first.loss).toBeCloseTo(0.1 * task + 0.9 * answers, 4);
    expect(Math.abs(answers)).toBeGreaterThan(0.01);
  });

  it('is T^2 KL without labels', async () => {
    const asked = await request({ labelled: false });
    const lesson = answersOnly(asked);
    expect(lesson).toMatchObject({ main: 'answers', terms: [] });
    const { first } = await steps(lesson, asked);
    expect(first.loss).toBeCloseTo((await byHand(asked)).answers, 4);
  });
});

describe('plain', () => {
  it('has labels alone, and needs them', async () => {
    const asked = await request();
    const { first } = await steps(plain(asked), asked);
    expect(first.loss).toBeCloseTo((await byHand(asked)).task, 4);
    const none = await request({ labelled: false });
    expect(() => plain(none)).toThrow(/Without labels there is nothing/);
  });
});

describe('attention', () => {
  it.each<[string, ModelProto, ModelProto]>([
    ['of equal grids', TEACHER, STUDENT],
    ['on the smaller grid', TEACHER, chainNet(4, 2)],
  ])('is the distance of maps of energy with norm 1: %s', async (_, teacher, student) => {
    const asked = await request({}, teacher, student);
    const lesson = attentionTransfer(asked);
    const { first } = await steps(lesson, asked);
    const unit = (maps: number[][][]): number[][] =>
      maps.map((channels) => {
        const energy = channels[0]!.map((__, p) => sum(channels.map((channel) => channel[p]! ** 2)));
        return energy.map((v) => v / norm(energy));
      });
    const wanted: number[] = [];
    for (const i of asked.pairs.keys()) {
      const [own, theirs] = (await pairValues(asked, i)).map(unit) as [number[][], number[][]];
      wanted.push(mean(own.map((map, n) => norm(map.map((v, p) => v - theirs[n]![p]!)))));
    }
    expect(first.hints).toHaveLength(3);
    first.hints.slice(1).forEach((loss, i) => {
      expect(loss).toBeCloseTo(wanted[i]!, 4);
    });
    const { task, answers } = await byHand(asked);
    expect(first.loss).toBeCloseTo(0.1 * task + 0.9 * answers + 5 * mean(wanted), 4);
  });
});

describe('features', () => {
  it('is the squared error behind a learned map of channels, both in units of their own size', async () => {
    const asked = await request();
    const lesson = featureHints(asked);
    const { first, moved } = await steps(lesson, asked);
    const graph = new Graph(lesson.student);
    for (const [i, { name, dims }] of lesson.parameters.entries()) {
      expect(dims).toEqual([3, 2]);
      const matrix = readFloats(graph.mustGet(name).initializer!);
      const [own, theirs] = await pairValues(asked, i);
      const mapped = own.map((channels) =>
        [0, 1, 2].flatMap((o) =>
          channels[0]!.map((_, p) => matrix[2 * o]! * channels[0]![p]! + matrix[2 * o + 1]! * channels[1]![p]!),
        ),
      );
      const standard = (rows: number[][]): number[][] => {
        const size = Math.sqrt(mean(rows.flat().map((v) => v * v)));
        return rows.map((row) => row.map((v) => v / size));
      };
      const [a, b] = [standard(mapped), standard(theirs.map((channels) => channels.flat()))];
      const wanted = mean(a.map((row, n) => mean(row.map((v, k) => (v - b[n]![k]!) ** 2))));
      expect(first.hints[i + 1]).toBeCloseTo(wanted, 4);
      expect(moved[i]).toBeGreaterThan(1e-6);
    }
    expect(lesson.parameters).toHaveLength(2);
  });
});

describe('relations', () => {
  it.each<[string, ModelProto, ModelProto]>([
    ['of equal grids', TEACHER, STUDENT],
    ['on the smaller grid', TEACHER, chainNet(4, 2)],
  ])('compares the Gram matrices of the batch: %s', async (_, teacher, student) => {
    const asked = await request({}, teacher, student);
    const { first } = await steps(relational(asked), asked);
    for (const i of asked.pairs.keys()) {
      const [own, theirs] = (await pairValues(asked, i)).map((values) => {
        const rows = values.map((channels) => channels.flat());
        const gram = rows.map((a) => rows.map((b) => sum(a.map((v, k) => v * b[k]!))));
        return gram.flat().map((v) => v / norm(gram.flat()));
      }) as [number[], number[]];
      expect(first.hints[i + 1]).toBeCloseTo(sum(own.map((v, k) => (v - theirs[k]!) ** 2)) / BATCH, 4);
    }
  });
});

describe('crd-lite', () => {
  it('learns projections of both sides, and tells samples apart', async () => {
    const asked = await request();
    const lesson = contrastive(asked);
    expect(lesson.parameters.map(({ dims }) => dims)).toEqual([
      [2, 128],
      [3, 128],
    ]);
    const { first, last, moved } = await steps(lesson, asked, 30);
    const features = async ({ model, features }: LessonRequest['student'], k: number): Promise<number[][]> => {
      const matrix = readFloats(new Graph(lesson.student).mustGet(lesson.parameters[k]!.name).initializer!);
      return rowsOf((await valuesOf(model, [features!.value]))[0]!).map((row) => {
        const out = Array.from({ length: 128 }, (_, o) => sum(row.map((v, i) => v * matrix[i * 128 + o]!)));
        return out.map((v) => v / norm(out));
      });
    };
    const [u, v] = [await features(asked.student, 0), await features(asked.teacher, 1)];
    const wanted = mean(
      u.map((own, i) => -Math.log(softmax(v.map((other) => sum(own.map((a, k) => (a * other[k]!) / 0.07))))[i]!)),
    );
    expect(first.hints[1]! / wanted).toBeCloseTo(1, 3);
    expect(last.loss).toBeLessThan(first.loss);
    for (const change of moved) expect(change).toBeGreaterThan(1e-4);
  });
});

describe('layers that cannot be compared', () => {
  it.each(['features', 'attention', 'relations'])(
    'are no silent reason for %s to learn answers alone',
    async (name) => {
      const { lesson } = findDistillationMethod(name)!;
      const asked = await request({}, tokenNet(2, 5, 1), blockNet(1, 2, 2));
      expect(asked.pairs.length).toBeGreaterThan(0);
      expect(() => lesson(asked)).toThrowError(expect.objectContaining({ code: 'unsupported' }));
    },
  );

  it('are not among the pairs that the report shows', async () => {
    const asked = await request({}, blockNet(2, 3, 1), blockNet(2, 2, 2));
    const [first, ...others] = asked.student.units;
    const flat: FlowUnit = { ...first!, dims: first!.dims.slice(0, 1) };
    const lesson = relational({ ...asked, student: { ...asked.student, units: [flat, ...others] } });
    expect(lesson.pairs).toEqual(asked.pairs.filter(({ student }) => student > 0));
    expect(lesson.terms.filter(({ name }) => name === 'relations')).toHaveLength(lesson.pairs.length);
  });
});

describe('every method for classifiers', () => {
  const names = DISTILLATION_METHODS.map(({ name }) => name).filter((name) => name !== 'generative');

  it.each(names)('%s takes a step on images and on tokens', async (name) => {
    const { lesson } = findDistillationMethod(name)!;
    for (const [teacher, student] of [
      [blockNet(2, 3, 1), blockNet(1, 2, 2)],
      [tokenNet(2, 5, 1), tokenNet(2, 4, 2)],
    ] as const) {
      const asked = await request({}, teacher, student);
      const { first, last } = await steps(lesson(asked), asked, 2).catch((error: unknown) => {
        throw new Error(`${name}: ${String(error)}`);
      });
      expect(Number.isFinite(first.loss) && Number.isFinite(last.loss)).toBe(true);
      expect(last.loss).not.toBe(first.loss);
    }
  });

  it.each(names)('%s gives the same lesson for the same seed', async (name) => {
    const { lesson } = findDistillationMethod(name)!;
    const asked = await request();
    const [one, two, other] = [lesson(asked), lesson(asked), lesson({ ...asked, seed: 2 })];
    const drawn = ({ student, parameters }: Lesson): number[][] =>
      parameters.map(({ name: of }) => [...readFloats(new Graph(student).mustGet(of).initializer!)]);
    expect(drawn(one)).toEqual(drawn(two));
    if (one.parameters.length > 0) expect(drawn(other)).not.toEqual(drawn(one));
  });
});
