/** Architectures of the zoo in sizes that run in milliseconds, and inputs for them. */
import type { ModelProto } from 'onnx-buf';
import { randomStream } from '../data/random.js';
import { declaredDims } from '../onnx/value-info.js';
import type { Feeds, HostTensor } from '../runtime/engine.js';
import type { Architecture } from '../zoo/architecture.js';
import { buildNetwork } from '../zoo/build.js';
import type { ZooOptions } from '../zoo/options.js';
import { findArchitecture } from '../zoo/registry.js';

const SMALLEST: Readonly<Record<string, number>> = {
  'inception-v3': 75,
  'bert-tiny': 6,
  'bert-base': 6,
  'gpt-mini': 6,
  gpt2: 6,
};

/** Options that keep a network quick to run. */
export function smallOptions({ name, defaults }: Architecture, more: ZooOptions = {}): ZooOptions {
  const wanted: ZooOptions = {
    width: 0.25,
    inputSize: SMALLEST[name] ?? Math.min(32, defaults.inputSize ?? 32),
    classes: 7,
    patchSize: 8,
    depth: 2,
    vocabulary: 40,
    latent: 6,
    ...more,
  };
  const own = Object.entries(wanted).filter(([option]) => option in defaults || option === 'seed');
  return Object.fromEntries(own);
}

/** An untrained network of the zoo. Options that the architecture does not have are left out. */
export function smallNetwork(name: string, options: ZooOptions = {}): ModelProto {
  const architecture = findArchitecture(name)!;
  return buildNetwork(architecture, smallOptions(architecture, options)).model;
}

/** Standard normal images, or token numbers from 1 to 39. */
export function zooFeeds(model: ModelProto, rows: number, seed = 3): Feeds {
  const random = randomStream(seed);
  const info = model.graph!.input[0]!;
  const dims = declaredDims(info)!.map((dim) => (typeof dim === 'number' ? dim : rows));
  const count = dims.reduce((a, b) => a * b, 1);
  const isText = info.type?.value.case === 'tensorType' && info.type.value.value.elemType === 7;
  const input: HostTensor = isText
    ? { type: 'int64', dims, data: BigInt64Array.from({ length: count }, () => BigInt(1 + random.int(39))) }
    : { type: 'float32', dims, data: Float32Array.from({ length: count }, () => random.normal()) };
  return { input };
}
