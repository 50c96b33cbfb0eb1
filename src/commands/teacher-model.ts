/** The teacher of a distillation: opened, checked against student and data, prepared. */
import type { ModelProto } from 'onnx-buf';
import type { Side } from '../distillation/lesson.js';
import { sideOf } from '../distillation/side.js';
import { FlowCompressError } from '../errors.js';
import type { GivenModel } from '../node/model-input.js';
import type { RunControl } from '../progress.js';
import { evaluateSession } from '../runtime/metric.js';
import { fixedBatchOf } from '../runtime/rows.js';
import { headOf } from '../runtime/scores.js';
import { traceShapes, type TracedValues } from '../runtime/trace.js';
import { assertSameInputs } from './measure.js';
import { prepareModel } from './prepare.js';
import { refuseFixedBatch } from './training-setup.js';
import { openSession, type Workspace } from './workspace.js';

export interface OpenedTeacher {
  readonly opened: GivenModel;
  /** Prepared. */
  readonly model: ModelProto;
  readonly shapes: TracedValues;
  readonly scores: string;
  readonly side: Side;
  readonly warnings: readonly string[];
}

/** @throws FlowCompressError `bad-input` for a teacher of other inputs or classes, or one that is no better than chance */
export async function openTeacherModel(
  workspace: Workspace,
  opened: GivenModel,
  control: RunControl,
): Promise<OpenedTeacher> {
  const { engine, inputs, feedsFor, working, classes, scores: own } = workspace;
  const session = await openSession(engine, opened);
  try {
    assertSameInputs(session.inputs, inputs, opened.name, workspace.opened.name);
    refuseFixedBatch({ fixedBatch: fixedBatchOf(session.inputs), opened }, 'teacher');
    const feeds = feedsFor(2);
    const results = await session.run(feeds);
    const head = headOf(
      session.outputs.map(({ name }) => ({ name, tensor: results[name]! })),
      feeds,
      working.train.labels !== undefined,
    );
    if (head.kind !== 'classes' || own === undefined || classes === undefined)
      throw new FlowCompressError('unsupported', 'Distillation needs class scores of teacher and student.', {
        node: head.kind === 'classes' ? workspace.opened.name : opened.name,
        hint: "For other models train with arrays of the teacher's outputs as targets: `flow-compress train`.",
      });
    if (head.classes !== classes)
      throw new FlowCompressError(
        'bad-input',
        `The teacher tells ${String(head.classes)} classes apart, the student ${String(classes)}.`,
        { node: opened.name, hint: 'Give --classes for an architecture, or another student.' },
      );
    if (working.val.labels) {
      const { metric } = await evaluateSession(session, workspace.batch(working.val), { signal: control.signal });
      if (metric && metric.value <= 1 / classes)
        throw new FlowCompressError(
          'bad-input',
          `The teacher is right on ${(100 * metric.value).toFixed(1)} % of VAL: no better than chance.`,
          { node: opened.name, hint: 'Check the preprocessing (--mean, --std, --scale) and the order of the classes.' },
        );
    }
    const scores = session.outputs[head.output]!.name;
    const prepared = await prepareModel(engine, opened.model, feedsFor, { signal: control.signal });
    const shapes = await traceShapes(engine, prepared.model, feedsFor(1));
    const { model, warnings } = prepared;
    return { opened, model, shapes, scores, side: sideOf(model, shapes, scores), warnings };
  } finally {
    await session.release();
  }
}
