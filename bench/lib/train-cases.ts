/** The training steps that benchmarks measure, on random images of 32x32, and the same steps in PyTorch. */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { nodeEngine } from '../../src/node/onnxruntime.js';
import { Graph } from '../../src/onnx/graph.js';
import type { Feeds, HostTensor } from '../../src/runtime/engine.js';
import { OPTIMIZER_DEFAULTS } from '../../src/training/optimizers.js';
import { trainableParameters } from '../../src/training/parameters.js';
import { openStepper, startVectors, type Stepper } from '../../src/training/stepper.js';
import { classTargets } from '../../src/training/targets.js';
import { trainedModel } from '../../src/training/trained-model.js';
import {
  buildTrainingGraph,
  type TrainingGraph,
  type TrainingGraphOptions,
} from '../../src/training/training-graph.js';
import { randomStream } from '../../src/data/random.js';
import { buildNetwork } from '../../src/zoo/build.js';
import type { ZooOptions } from '../../src/zoo/options.js';
import { findArchitecture } from '../../src/zoo/registry.js';

export interface StepCase {
  /** As bench/peers/train_step.py calls it. */
  readonly name: string;
  readonly architecture: string;
  readonly options: ZooOptions;
  readonly batch: number;
}

export const STEP_CASES: readonly StepCase[] = [
  { name: 'resnet20', architecture: 'resnet20', options: {}, batch: 128 },
  { name: 'resnet56', architecture: 'resnet56', options: {}, batch: 128 },
  { name: 'mobilenetv2', architecture: 'mobilenet-v2', options: { classes: 10, inputSize: 32, dropout: 0 }, batch: 64 },
  {
    name: 'vit',
    architecture: 'vit-ti',
    options: { classes: 10, inputSize: 32, patchSize: 4, depth: 6, dropout: 0 },
    batch: 64,
  },
];

const peerSchema = z.object({ version: z.string(), medianMs: z.number(), bytesAbove: z.number() });

export interface PeerOptions {
  readonly threads: number;
  readonly steps: number;
  readonly channelsLast?: boolean;
}

export function torchStep(
  python: string,
  { name, batch }: StepCase,
  { threads, steps, channelsLast = false }: PeerOptions,
): z.infer<typeof peerSchema> {
  const script = fileURLToPath(new URL('../peers/train_step.py', import.meta.url));
  const result = spawnSync(
    python,
    [
      ...[script, '--model', name, '--batch', String(batch), '--threads', String(threads), '--steps', String(steps)],
      ...(channelsLast ? ['--channels-last'] : []),
    ],
    { encoding: 'utf8' },
  );
  if (result.status !== 0) throw new Error(result.stderr);
  return peerSchema.parse(JSON.parse(result.stdout));
}

export interface StepSetup {
  readonly graph: TrainingGraph;
  readonly feeds: Feeds;
  readonly target: HostTensor;
  readonly stepper: Stepper;
}

export async function openStep(
  { architecture, options, batch }: StepCase,
  threads: number,
  more: Partial<TrainingGraphOptions> = {},
): Promise<StepSetup> {
  const engine = nodeEngine({ threads });
  const found = findArchitecture(architecture);
  if (!found) throw new Error(`no architecture ${architecture}`);
  const { model } = buildNetwork(found, options);
  const trainable = trainedModel(model, 'logits', 'cross-entropy');
  const parameters = trainableParameters(new Graph(trainable.model));
  const random = randomStream(1);
  const images = (rows: number): Feeds => ({
    input: {
      type: 'float32',
      dims: [rows, 3, 32, 32],
      data: Float32Array.from({ length: rows * 3072 }, () => random.normal()),
    },
  });
  const graph = await buildTrainingGraph(
    engine,
    trainable.model,
    {
      ...{ loss: 'cross-entropy', output: trainable.output, batchSize: batch, parameters, optimizer: 'adamw' },
      ...{ optimizerSettings: OPTIMIZER_DEFAULTS, weightDecay: 0.01, accumulate: 1, temperature: 1 },
      ...{ batchNorm: 'updated', seed: 1, ...more },
    },
    images,
  );
  const stepper = await openStepper(
    engine,
    graph,
    { name: 'adamw', settings: OPTIMIZER_DEFAULTS },
    startVectors(trainable.model, parameters, graph),
  );
  const feeds = images(batch);
  const labels = Int32Array.from({ length: batch }, () => random.int(10));
  const target = classTargets(labels, 10);
  return { graph, feeds, target, stepper };
}
