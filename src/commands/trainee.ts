/** What `train` starts from: a model file, or an architecture of the zoo built into a temporary one. */
import { stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ModelProto } from 'onnx-buf';
import { FlowCompressError } from '../errors.js';
import { nearest } from '../nearest.js';
import { openDataset } from '../node/data/open.js';
import { saveModel } from '../node/model-file.js';
import { nodeEngine } from '../node/onnxruntime.js';
import { makeTemporaryFolder } from '../node/temporary-folder.js';
import { toBytes } from '../onnx/to-bytes.js';
import { buildNetwork } from '../zoo/build.js';
import type { ZooOptions } from '../zoo/options.js';
import { ARCHITECTURES, findArchitecture } from '../zoo/registry.js';
import type { TrainOptions } from './options.js';

export interface Trainee {
  /** Where the model is. */
  readonly path: string;
  /** Whether its weights are random. */
  readonly isNew: boolean;
  /** Removes what was built. */
  close(): Promise<void>;
}

/**
 * @param model path of a file or folder, or the name of an architecture; a file of that name wins
 * @throws FlowCompressError `bad-input` for options that the architecture does not have
 */
export async function openTrainee(model: string, settings: TrainOptions): Promise<Trainee> {
  const architecture = findArchitecture(model);
  const isFile = await stat(model).then(
    () => true,
    () => false,
  );
  if (!isFile && !architecture && !/[./\\]/.test(model)) {
    const near = nearest(
      model,
      ARCHITECTURES.map(({ name }) => name),
    );
    throw new FlowCompressError('bad-input', `${model} is neither a file nor an architecture.`, {
      node: model,
      hint: `${near === undefined ? '' : `Did you mean ${near}? `}\`flow-compress zoo list\` shows the architectures.`,
    });
  }
  if (isFile || !architecture) return { path: model, isNew: false, close: () => Promise.resolve() };
  const { classes, inputSize, width, channels, depth, patchSize, dropout, shortcut, seed } = settings;
  const options: ZooOptions = { classes, inputSize, width, channels, depth, patchSize, dropout, shortcut, seed };
  let { model: built } = buildNetwork(architecture, options);
  if (classes === undefined && architecture.defaults.classes !== undefined) {
    const found = await classesIn(settings, built);
    if (found !== undefined && found !== architecture.defaults.classes)
      built = buildNetwork(architecture, { ...options, classes: found }).model;
  }
  const folder = await makeTemporaryFolder(join(tmpdir(), 'flow-compress-'));
  const path = join(folder.path, `${architecture.name}.onnx`);
  try {
    await saveModel(built, path);
  } catch (error) {
    await folder.remove();
    throw error;
  }
  return { path, isNew: true, close: () => folder.remove() };
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
