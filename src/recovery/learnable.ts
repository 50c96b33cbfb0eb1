/** Whether a model can learn from another at all, told before anything takes time. */
import type { ModelProto } from 'onnx-buf';
import { FlowCompressError } from '../errors.js';
import type { Engine, Feeds } from '../runtime/engine.js';
import { OPTIMIZER_DEFAULTS } from '../training/optimizers.js';
import { buildTrainingGraph } from '../training/training-graph.js';
import { floatStudent } from './float-student.js';
import { lessonOf } from './teacher.js';

/** Samples of the step that is tried. */
const ROWS = 2;

/**
 * Builds a step in which the model learns from itself, as `recover` would build one, and runs nothing.
 * @param scores name of the output with one score per class, if the model has one
 * @param feedsFor feeds of a few real samples
 * @returns why it cannot learn, as `recover` would say it: `unsupported` naming a node without a gradient rule, or for want of
 *   parameters or of an output to learn from; undefined when it can
 */
export async function refusalToLearn(
  engine: Engine,
  model: ModelProto,
  scores: string | undefined,
  feedsFor: (rows: number) => Feeds,
): Promise<FlowCompressError | undefined> {
  try {
    const { model: student, parameters } = floatStudent(model, 'updated');
    const lesson = await lessonOf(engine, model, scores, feedsFor);
    const { model: learner, output } = lesson.of(student);
    await buildTrainingGraph(
      engine,
      learner,
      {
        ...{ loss: lesson.loss, output, batchSize: ROWS, parameters, temperature: 1, seed: 0 },
        ...{ optimizer: 'adamw', optimizerSettings: OPTIMIZER_DEFAULTS, weightDecay: 0, accumulate: 1 },
        ...{ batchNorm: 'updated', layout: 'plain' },
      },
      feedsFor,
    );
    return undefined;
  } catch (error) {
    if (error instanceof FlowCompressError && error.code === 'unsupported') return error;
    throw error;
  }
}
