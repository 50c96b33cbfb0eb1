/** What `train` teaches: the output that learns, its targets, the loss, and the metric on VAL that decides. */
import type { Batch } from '../../data/dataset.js';
import { FlowCompressError } from '../../errors.js';
import type { HostTensor } from '../../runtime/engine.js';
import type { LossName } from '../../training/losses.js';
import type { LossTargets } from '../../training/measure-loss.js';
import { balancedWeights, binaryTargets, classTargets } from '../../training/targets.js';
import type { TrainingMetric, TrainOptions } from './options.js';
import { checkedTargets } from './target-arrays.js';
import { refuseFixedBatch } from './setup.js';
import type { ClassOutput, Workspace } from '../workspace.js';

export interface Objective {
  readonly loss: LossName;
  /** Name of the output of the model that learns. */
  readonly output: string;
  /** Its shape for some number of samples. */
  readonly dims: readonly number[];
  /** Whether samples have weights. */
  readonly weighted: boolean;
  readonly metric: TrainingMetric;
  /** @param isProbability whether the output is a softmax, and targets for it probabilities */
  targets(batch: Batch, isProbability: boolean): LossTargets;
}

/**
 * An array under the name of an output is its target; without one, labels are, for the output with the scores.
 * @throws FlowCompressError `unsupported` for a model that cannot be trained on this data, `bad-input` for targets and options that do
 *   not fit each other
 */
export function objectiveOf(workspace: Workspace, settings: TrainOptions): Objective {
  refuseFixedBatch(workspace);
  const named = Object.keys(workspace.working.train.targets ?? {});
  if (named.length > 1)
    throw new FlowCompressError(
      'bad-input',
      `The data has targets for ${named.join(' and ')}; one output is trained.`,
      {
        node: settings.data,
        hint: 'Leave the array of one output in the file, or name the others differently.',
      },
    );
  const [output] = named;
  const task = output === undefined ? labelTask(workspace, settings) : arrayTask(workspace, settings, output);
  return { ...task, metric: metricOf(workspace, settings) };
}

type Task = Omit<Objective, 'metric'>;

function arrayTask({ outputDims }: Workspace, settings: TrainOptions, output: string): Task {
  const { loss = 'mse', data } = settings;
  const refuse = (message: string, hint: string): FlowCompressError =>
    new FlowCompressError('bad-input', message, { node: data, hint });
  if (settings.labelSmoothing > 0 || settings.balance)
    throw refuse(
      `--${settings.balance ? 'balance' : 'label-smoothing'} is about labels, but the array ${output} is the target.`,
      'Leave the option out, or the array.',
    );
  const dims = outputDims.get(output);
  if (!dims)
    throw new FlowCompressError(
      'unsupported',
      `The output ${output} is not float32 with the samples as its first axis.`,
      {
        node: output,
        hint: 'Give targets for another output.',
      },
    );
  if ((loss === 'cross-entropy' || loss === 'kl') && (dims[1] ?? 1) < 2)
    throw refuse(
      `The loss ${loss} compares distributions over classes, along axis 1; the output ${output} has the shape [${['N', ...dims.slice(1)].join(', ')}].`,
      'Use bce for one probability per sample, mse, l1 or huber for numbers.',
    );
  refuseMoved(settings, output, dims);
  return {
    ...{ loss, output, dims, weighted: false },
    targets: (batch, isProbability) => ({
      target: checkedTargets(batch.targets![output]!, { loss, dims, output, isProbability }),
    }),
  };
}

/** @throws FlowCompressError `unsupported` for augmentation that would move inputs away from targets with positions */
export function refuseMoved({ augment }: Pick<TrainOptions, 'augment'>, output: string, dims: readonly number[]): void {
  const moved = augment.find((kind) => kind === 'crop' || kind === 'flip');
  if (!moved || dims.length <= 2) return;
  throw new FlowCompressError(
    'unsupported',
    `--augment ${moved} moves the pixels of the inputs, not those of ${output}.`,
    {
      node: output,
      hint: 'Leave it out: targets with positions of their own stay where they are.',
    },
  );
}

function labelTask(workspace: Workspace, settings: TrainOptions): Task {
  const { head, working, outputDims, outputs } = workspace;
  const { loss = 'cross-entropy', labelSmoothing } = settings;
  const { labels } = working.train;
  const names = outputs.map(({ name }) => name).join(', ');
  if (!labels)
    throw new FlowCompressError(
      'bad-input',
      `The data has neither labels nor an array named after an output (${names}).`,
      {
        node: settings.data,
        hint: 'train needs labelled data, or a .npz file with what an output should be, under the name of the output.',
      },
    );
  const dims = head && outputDims.get(head.output);
  if (!head || !dims)
    throw new FlowCompressError('unsupported', 'No output of the model is recognised as float32 scores per class.', {
      node: workspace.opened.name,
      hint: `Labels train such scores. For another task give a .npz file with what an output (${names}) should be, under its name.`,
    });
  if (loss === 'kl' || (loss === 'cross-entropy' && head.kind === 'binary'))
    throw new FlowCompressError(
      'bad-input',
      loss === 'kl'
        ? 'The loss kl learns from the outputs of a teacher, not from labels.'
        : `The loss cross-entropy needs a score per class; ${head.output} is one score per sample.`,
      {
        node: settings.data,
        hint: loss === 'kl' ? `Put them into the .npz file as the array ${head.output}.` : 'Use --loss bce.',
      },
    );
  const weights = settings.balance ? balancedWeights(labels, head.classes) : undefined;
  return {
    ...{ loss, output: head.output, dims, weighted: weights !== undefined },
    targets: (batch) => {
      const own = batch.labels!;
      const target = labelTargets(own, head, labelSmoothing);
      return {
        target: { ...target, dims: [own.length, ...dims.slice(1)] },
        ...(weights && { weights: weightsOf(own, weights) }),
      };
    },
  };
}

function labelTargets(labels: Int32Array, { kind, classes }: ClassOutput, labelSmoothing: number): HostTensor {
  return kind === 'binary' ? binaryTargets(labels, labelSmoothing) : classTargets(labels, classes, labelSmoothing);
}

function weightsOf(labels: Int32Array, weights: readonly number[]): HostTensor {
  return { type: 'float32', dims: [labels.length], data: Float32Array.from(labels, (label) => weights[label]!) };
}

/** As asked for, where the data and the model have it; `top1` where there are labels of classes. */
function metricOf({ head, working }: Workspace, { metric, data }: TrainOptions): TrainingMetric {
  const labelled = head !== undefined && working.val.labels !== undefined;
  if (metric === undefined) return labelled ? 'top1' : 'loss';
  if (metric === 'loss') return metric;
  const { classes = 0 } = head ?? {};
  const missing = !labelled
    ? 'labels, and an output with scores'
    : metric === 'f1-binary' && classes !== 2
      ? `two classes, the model has ${String(classes)}`
      : metric === 'top5' && classes <= 5
        ? `more than five classes, the model has ${String(classes)}`
        : undefined;
  if (missing === undefined) return metric;
  throw new FlowCompressError('bad-input', `--metric ${metric} needs ${missing}.`, {
    node: data,
    hint: labelled ? 'Use top1, f1-macro or loss.' : 'Use --metric loss, which needs no labels.',
  });
}
