/** Pairs of small classifiers for tests of distillation: with residual blocks, without them, and over tokens; lessons between them. */
import type { ModelProto } from 'onnx-buf';
import type { Batch } from '../data/dataset.js';
import { meanChanges } from '../distillation/changes.js';
import type { LessonOptions, LessonRequest, Pair, Side } from '../distillation/lesson.js';
import { mapByDepth } from '../distillation/mapping.js';
import { fitMaps } from '../distillation/maps.js';
import { sideOf } from '../distillation/side.js';
import type { Value } from '../onnx/graph.js';
import { reduce } from '../onnx/ops.js';
import { traceShapes, type TracedValues } from '../runtime/trace.js';
import { Builder } from './flow-models.js';
import { engine } from './graph-writing.js';
import { normals } from './tiny-models.js';

/** Dims of a sample of `blockNet` and `chainNet`, and of `tokenNet`. */
export const IMAGE = [2, 4, 4] as const;
export const TOKENS = [3, 4] as const;
export const CLASSES = 3;

function classified(b: Builder, x: Value, channels: number): ModelProto {
  const features = b.op('Flatten', [b.op('GlobalAveragePool', [x])]);
  return b.done(b.op('Gemm', [features, b.weight([channels, CLASSES]), b.weight([CLASSES], 0.1)]));
}

/** A convolution, `blocks` residual blocks y = relu(x + F(x)), a class head. */
export function blockNet(blocks: number, width: number, seed: number): ModelProto {
  const b = new Builder(17, seed);
  let x = b.op('Relu', [b.conv(b.input('x', IMAGE), [width, 2, 3, 3])]);
  for (let i = 0; i < blocks; i++) {
    const inner = b.op('Relu', [b.conv(x, [width, width, 3, 3])]);
    x = b.op('Relu', [b.op('Add', [b.conv(inner, [width, width, 3, 3]), x])]);
  }
  return classified(b, x, width);
}

/** Three convolutions, one after another: one to half the size and more channels, one that keeps its shape. */
export function chainNet(width: number, seed: number): ModelProto {
  const b = new Builder(17, seed);
  let x = b.op('Relu', [b.conv(b.input('x', IMAGE), [width, 2, 3, 3])]);
  x = b.op('Relu', [b.conv(x, [width + 1, width, 3, 3], 2)]);
  x = b.op('Relu', [b.conv(x, [width + 1, width + 1, 3, 3])]);
  return classified(b, x, width + 1);
}

/** Tokens through residual feed-forward blocks, then the mean over the tokens: channels come last. */
export function tokenNet(blocks: number, width: number, seed: number): ModelProto {
  const b = new Builder(17, seed);
  let x = b.dense(b.input('x', TOKENS), TOKENS[1], width);
  for (let i = 0; i < blocks; i++)
    x = b.op('Add', [x, b.dense(b.op('Relu', [b.dense(x, width, 2 * width)]), 2 * width, width)]);
  return b.done(b.dense(reduce(b.graph, 'ReduceMean', x, [1]), width, CLASSES));
}

/** A side as distillation sees it, and the shapes behind it. */
export async function tinySide(model: ModelProto): Promise<Side & { readonly shapes: TracedValues }> {
  const shapes = await traceShapes(engine, model, feedOf(model, 1));
  return { ...sideOf(model, shapes, { kind: 'classes', scores: model.graph!.output[0]!.name }), shapes };
}

/** Normal samples for one of the models above. */
export function feedOf(model: ModelProto, rows: number, seed = 5): Batch['feeds'] {
  const type = model.graph!.input[0]!.type!.value;
  const shape = type.case === 'tensorType' ? type.value.shape!.dim.slice(1) : [];
  const dims = [rows, ...shape.map(({ value }) => Number(value.value))];
  const count = dims.reduce((a, b) => a * b, 1);
  return { x: { type: 'float32', dims, data: normals(count, seed) } };
}

export const LESSON_DEFAULTS: LessonOptions = {
  temperature: 4,
  select: 'all',
  flow: 'layers',
  perSample: false,
  weighting: 'adaptive',
};

/** What a method is asked with: layers paired by depth, flows and maps of 64 samples. */
export async function lessonRequest(
  teacher: ModelProto,
  student: ModelProto,
  options: Partial<LessonOptions> & { readonly labelled?: boolean; readonly batchSize?: number } = {},
): Promise<LessonRequest> {
  const { labelled = true, batchSize = 2, ...own } = options;
  const [theirs, mine] = [await tinySide(teacher), await tinySide(student)];
  const about = ({ model, shapes, units }: typeof mine) => ({
    ...{ engine, model, shapes, units, samples: 64 },
    batches: async function* (): AsyncGenerator<Batch> {
      yield await Promise.resolve({ feeds: feedOf(model, 64, 9), size: 64 });
    },
  });
  const mapping = mapByDepth({ teacher: theirs.units, student: mine.units });
  const teacherMaps = await fitMaps(about(theirs));
  return {
    ...{ teacher: theirs, student: mine, labelled, batchSize, samples: 64, seed: 1, teacherMaps },
    pairs: mapping.map((t, s): Pair => ({ student: s, teacher: t })),
    teacherFlow: await meanChanges({ ...about(theirs), maps: teacherMaps }),
    studentMaps: await fitMaps(about(mine)),
    answerDims: [1, CLASSES],
    options: { ...LESSON_DEFAULTS, ...own },
  };
}
