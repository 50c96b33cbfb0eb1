/** What the original model teaches the compressed one: the value that the loss compares, the same in both. */
import type { ModelProto } from 'onnx-buf';
import { intAttribute } from '../onnx/attributes.js';
import { Graph, rewrite } from '../onnx/graph.js';
import { concat, constantOf, formula } from '../onnx/ops.js';
import { toBytes } from '../onnx/to-bytes.js';
import { FlowCompressError } from '../errors.js';
import type { Engine, Feeds, HostTensor, Session } from '../runtime/engine.js';
import { namedFeeds } from '../runtime/rows.js';
import { runOnce } from '../runtime/run-once.js';
import { exposeOnly } from '../runtime/trace.js';
import type { TaughtValue } from './hints.js';
import { logitsOf } from '../training/logits.js';
import type { LossName } from '../training/losses.js';

/** The part of a model's outputs that is learned from. */
export interface Lesson {
  readonly loss: Extract<LossName, 'kl' | 'mse'>;
  /** The model with the value that the loss reads, under this name. */
  of(model: ModelProto): { readonly model: ModelProto; readonly output: string };
}

/**
 * Logits where the model scores classes, looked for in front of a softmax; all float outputs otherwise, each [N, ...] relative
 * to its root mean square, side by side, so that their mean squared error is a relative one.
 * @param scores name of the output with one score per class, if the model has one
 * @param feedsFor feeds of a few real samples
 * @throws FlowCompressError `unsupported` when no float output has a row per sample
 */
export async function lessonOf(
  engine: Engine,
  model: ModelProto,
  scores: string | undefined,
  feedsFor: (rows: number) => Feeds,
): Promise<Lesson> {
  const value = scores === undefined ? undefined : new Graph(model).value(scores);
  if (value) {
    const { name } = logitsOf(value);
    return { loss: 'kl', of: (any) => ({ model: any, output: name }) };
  }
  const [two, three] = [await runOnce(engine, model, feedsFor(2)), await runOnce(engine, model, feedsFor(3))];
  const parts = Object.entries(two).flatMap(([name, { dims, data }]) => {
    if (!(data instanceof Float32Array) || dims[0] !== 2 || three[name]!.dims[0] !== 3) return [];
    const size = Math.sqrt(data.reduce((sum, v) => sum + v * v, 0) / Math.max(data.length, 1));
    return [{ name, factor: size > 0 ? 1 / size : 1 }];
  });
  if (parts.length === 0)
    throw new FlowCompressError('unsupported', 'The model has no float output with a row per sample to learn from.', {
      hint: 'Compress it without recovery.',
    });
  return { loss: 'mse', of: (any) => joined(any, parts) };
}

function joined(
  model: ModelProto,
  parts: readonly { readonly name: string; readonly factor: number }[],
): { model: ModelProto; output: string } {
  const graph = new Graph(model);
  const op = formula(graph);
  const rows = parts.map(({ name, factor }) =>
    graph.insertOp('Flatten', [op('Mul', graph.mustGet(name), factor)], [intAttribute('axis', 1)]),
  );
  const all = concat(graph, rows, 1);
  return { model: graph.toModel(), output: all.name };
}

/** What the teacher says of a batch. */
export interface Answer {
  readonly target: HostTensor;
  /** For every taught value. */
  readonly values: readonly HostTensor[];
}

export interface Teacher {
  answer(feeds: Feeds): Promise<Answer>;
  release(): Promise<void>;
}

/** A session of the original that gives the targets of batches. */
export async function openTeacher(
  engine: Engine,
  model: ModelProto,
  lesson: Lesson,
  taught: readonly TaughtValue[] = [],
): Promise<Teacher> {
  const { model: whole, output } = lesson.of(model);
  const names: string[] = [];
  const alone = rewrite(whole, (graph) => {
    const values = taught.map(({ teacher, part }) => {
      const value = graph.mustGet(teacher);
      // A value of its own, as two of the taught ones may be the same.
      if (!part) return graph.insertOp('Identity', [value]);
      const { channels, axis } = part;
      return graph.insertOp('Gather', [value, constantOf(graph, channels, 'int64')], [intAttribute('axis', axis)]);
    });
    names.push(...values.map(({ name }) => name));
    exposeOnly(graph, [graph.mustGet(output), ...values]);
  });
  const session: Session = await engine.createSession(toBytes(alone));
  const taken = new Set(session.inputs.map(({ name }) => name));
  return {
    async answer(feeds) {
      const results = await session.run(namedFeeds(feeds, taken));
      return { target: results[output]!, values: names.map((name) => results[name]!) };
    },
    release: () => session.release(),
  };
}
