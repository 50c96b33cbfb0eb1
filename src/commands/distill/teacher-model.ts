/** The teacher of a distillation: opened, checked against student and data, prepared. */
import type { ModelProto } from 'onnx-buf';
import type { Side } from '../../distillation/lesson.js';
import { sideOf, type Answering } from '../../distillation/side.js';
import { FlowCompressError } from '../../errors.js';
import type { GivenModel } from '../../node/model-input.js';
import type { RunControl } from '../../progress.js';
import { evaluateSession } from '../../runtime/metric.js';
import { fixedBatchOf } from '../../runtime/rows.js';
import { headOfRun } from '../../runtime/head-of-run.js';
import type { NamedTensor } from '../../runtime/scores.js';
import { traceShapes, type TracedValues } from '../../runtime/trace.js';
import { distillTask } from './task.js';
import { assertSameInputs } from '../same-inputs.js';
import type { DistillOptions } from './options.js';
import { prepareModel } from '../prepare.js';
import { matchInputs, withInputNames, type InputNames } from '../input-names.js';
import { refuseFixedBatch } from '../train/setup.js';
import { openSession, type Workspace } from '../workspace.js';

export interface OpenedTeacher {
  readonly opened: GivenModel;
  /** Prepared. */
  readonly model: ModelProto;
  readonly shapes: TracedValues;
  /** Output with the class scores. */
  readonly scores: string | undefined;
  readonly side: Side;
  /** What the data calls its inputs, by their own names, where that differs. */
  readonly inputNames: InputNames | undefined;
  readonly warnings: readonly string[];
}

/**
 * @param given what the teacher is given as, with the inputs under its own names
 * @throws FlowCompressError `bad-input` for a teacher of other inputs, classes or outputs, or one that is no better than chance
 */
export async function openTeacherModel(
  workspace: Workspace,
  given: GivenModel,
  settings: DistillOptions,
  control: RunControl,
): Promise<OpenedTeacher> {
  const { engine, inputs, feedsFor, working, classes } = workspace;
  const task = distillTask(workspace, settings);
  const inputNames = await inputNamesOf(workspace, given, settings);
  const opened = inputNames ? withInputNames(given, inputNames) : given;
  const session = await openSession(engine, opened);
  try {
    assertSameInputs(session.inputs, inputs, opened.name, workspace.opened.name);
    refuseFixedBatch({ fixedBatch: fixedBatchOf(session.inputs), opened }, 'teacher');
    const found = await headOfRun(session, feedsFor(2), working.train.labels !== undefined);
    const { head, scores } = found;
    const prepare = async (answering: Answering): Promise<OpenedTeacher> => {
      const prepared = await prepareModel(engine, opened.model, feedsFor, { signal: control.signal });
      const shapes = await traceShapes(engine, prepared.model, feedsFor(1));
      const { model, warnings } = prepared;
      return { opened, model, shapes, scores, side: sideOf(model, shapes, answering), warnings, inputNames };
    };
    if (task.kind === 'values') {
      const outputs = facingOutputs(workspace, task.answering.outputs, found.outputs, opened.name);
      return { ...(await prepare({ kind: 'values', outputs })), scores: undefined };
    }
    if (head.kind !== 'classes' || scores === undefined)
      throw new FlowCompressError('unsupported', 'The student has class scores and the teacher none.', {
        node: opened.name,
        hint: 'Give --outputs to compare outputs by value, or models of one kind.',
      });
    if (head.classes !== classes)
      throw new FlowCompressError(
        'bad-input',
        `The teacher tells ${String(head.classes)} classes apart, the student ${String(classes)}.`,
        { node: opened.name, hint: 'Give --classes for an architecture, or another student.' },
      );
    if (working.val.labels) {
      const { metric } = await evaluateSession(session, workspace.batch(working.val), { signal: control.signal });
      if (metric && metric.value <= 1 / head.classes)
        throw new FlowCompressError(
          'bad-input',
          `The teacher is right on ${(100 * metric.value).toFixed(1)} % of VAL: no better than chance.`,
          { node: opened.name, hint: 'Check the preprocessing (--mean, --std, --scale) and the order of the classes.' },
        );
    }
    return await prepare({ kind: 'classes', scores });
  } finally {
    await session.release();
  }
}

async function inputNamesOf(
  { engine, inputs }: Workspace,
  opened: GivenModel,
  settings: DistillOptions,
): Promise<InputNames | undefined> {
  const session = await openSession(engine, opened);
  const own = session.inputs;
  await session.release();
  return matchInputs(own, inputs, settings.inputs ?? [], opened.name);
}

/**
 * The teacher's outputs that face these of the student: of the same name, else in the same place.
 * @throws FlowCompressError `bad-input` where one has another shape
 */
export function facingOutputs(
  { outputs: own, outputDims, opened }: Workspace,
  names: readonly string[],
  theirs: readonly NamedTensor[],
  teacher: string,
): string[] {
  const show = (dims: readonly number[] = []): string => `[${['N', ...dims.slice(1)].join(', ')}]`;
  return names.map((name) => {
    const place = own.findIndex((output) => output.name === name);
    const facing = theirs.find((output) => output.name === name) ?? theirs[place];
    const dims = outputDims.get(name);
    const fits = facing?.tensor.type === 'float32' && facing.tensor.dims.slice(1).join() === dims?.slice(1).join();
    if (facing && fits) return facing.name;
    throw new FlowCompressError(
      'bad-input',
      `The student gives ${name} ${show(dims)}, the teacher ${facing ? `${facing.name} ${facing.tensor.type} ${show(facing.tensor.dims)}` : 'no such output'}.`,
      {
        node: teacher,
        hint: `Give models with the same outputs as ${opened.name}, or --outputs for those that both have.`,
      },
    );
  });
}
