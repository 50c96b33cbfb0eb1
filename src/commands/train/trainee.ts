/** What `train` starts from: a model, or an architecture of the zoo, which is built. */
import { stat } from 'node:fs/promises';
import type { ModelProto } from 'onnx-buf';
import { FlowCompressError } from '../../errors.js';
import { nearest } from '../../nearest.js';
import { openDataset } from '../../node/data/open.js';
import { nameOf, type GivenModel, type ModelInput } from '../../node/model-input.js';
import { nodeEngine } from '../../node/onnxruntime.js';
import { Graph, type Value } from '../../onnx/graph.js';
import { withFields } from '../../onnx/message.js';
import { toBytes } from '../../onnx/to-bytes.js';
import { buildNetwork } from '../../zoo/build.js';
import type { ZooOptions } from '../../zoo/options.js';
import { ARCHITECTURES, findArchitecture } from '../../zoo/registry.js';
import { narrowedName, narrowedTeacher, TEACHER } from '../distill/narrowed.js';
import type { TrainOptions } from './options.js';

export interface Trainee {
  readonly input: ModelInput;
  /** What reports and messages call it. */
  readonly name: string;
  /** Whether its weights are random. */
  readonly isNew: boolean;
}

/**
 * @param input a path, bytes or a model, or the name of an architecture; a file of that name wins
 * @throws FlowCompressError `bad-input` for options that the architecture does not have
 */
export async function openTrainee(input: ModelInput, settings: TrainOptions): Promise<Trainee> {
  const given = { input, name: nameOf(input), isNew: false };
  if (typeof input !== 'string') return given;
  const architecture = findArchitecture(input);
  const isFile = await stat(input).then(
    () => true,
    () => false,
  );
  if (!isFile && !architecture && !/[./\\]/.test(input)) {
    const near = nearest(
      input,
      ARCHITECTURES.map(({ name }) => name),
    );
    throw new FlowCompressError('bad-input', `${input} is neither a file nor an architecture.`, {
      node: input,
      hint: `${near === undefined ? '' : `Did you mean ${near}? `}\`flow-compress zoo list\` shows the architectures.`,
    });
  }
  if (isFile || !architecture) return given;
  const { classes, inputSize, width, channels, depth, patchSize, dropout, shortcut, seed } = settings;
  const options: ZooOptions = { classes, inputSize, width, channels, depth, patchSize, dropout, shortcut, seed };
  let { model: built } = buildNetwork(architecture, options);
  if (classes === undefined && architecture.defaults.classes !== undefined) {
    const found = await classesIn(settings, built);
    if (found !== undefined && found !== architecture.defaults.classes)
      built = buildNetwork(architecture, { ...options, classes: found }).model;
  }
  return { input: built, name: input, isNew: true };
}

/** How many classes the labels of the data name. */
async function classesIn({ data, preprocess }: TrainOptions, model: ModelProto): Promise<number | undefined> {
  const session = await nodeEngine({ threads: 1 }).createSession(toBytes(model));
  const { inputs, outputs } = session;
  await session.release();
  const opened = await openDataset(
    data,
    inputs,
    preprocess,
    outputs.map(({ name }) => name),
  );
  try {
    const base = opened.all ?? opened.train ?? opened.val ?? opened.test;
    if (base?.classNames) return base.classNames.length;
    return base?.labels?.reduce((most, label) => Math.max(most, label + 1), 1);
  } finally {
    await opened.close();
  }
}

/**
 * What a teacher is to have as its student: an architecture is built for its inputs, which get the teacher's names; `teacher` is its
 * own graph, narrower.
 * @throws FlowCompressError `bad-input` as `openTrainee`
 */
export async function openStudent(input: ModelInput, teacher: GivenModel, settings: TrainOptions): Promise<Trainee> {
  if (input === TEACHER) {
    const { width = 1, seed, threads } = settings;
    const made = await narrowedTeacher(nodeEngine({ threads }), teacher.model, width, seed, teacher.name);
    return { input: made, name: narrowedName(teacher.name, width), isNew: true };
  }
  const graph = new Graph(teacher.model);
  const [image] = graph.inputs.filter((value) => graph.isFed(value));
  const dims = dimsOf(image);
  const [channels, side] = dims?.length === 4 ? [dims[1], dims[2]] : [];
  const [scores] = graph.outputs;
  const classes = scores && dimsOf(scores)?.[1];
  const trainee = await openTrainee(input, {
    ...settings,
    ...(settings.channels === undefined && channels !== undefined && { channels }),
    ...(settings.inputSize === undefined && side !== undefined && { inputSize: side }),
    ...(settings.classes === undefined && classes !== undefined && { classes }),
  });
  if (!trainee.isNew || !image) return trainee;
  return { ...trainee, input: withInputNamed(trainee.input as ModelProto, image.name) };
}

/** The model with its only input under another name. */
export function withInputNamed(model: ModelProto, name: string): ModelProto {
  const graph = new Graph(model);
  const [own] = graph.inputs.filter((value) => graph.isFed(value));
  if (!own?.info || own.name === name) return model;
  graph.replaceUses(own, graph.addInput(withFields(own.info, { name })));
  graph.dropUnreadInputs();
  return graph.toModel();
}

/** Sizes as declared; undefined for those that are not. */
function dimsOf(value: Value | undefined): (number | undefined)[] | undefined {
  const type = value?.info?.type?.value;
  if (type?.case !== 'tensorType') return undefined;
  return type.value.shape?.dim.map(({ value: dim }) => (dim.case === 'dimValue' ? Number(dim.value) : undefined));
}
