/** The students that `distill --student auto` can choose among: architectures of the zoo, and the teacher with fewer blocks. */
import type { ModelProto } from 'onnx-buf';
import { findAttention } from '../../flow/attention.js';
import { FlowCompressError, throwIfAborted } from '../../errors.js';
import { Graph } from '../../onnx/graph.js';
import { findLayers } from '../../onnx/layers.js';
import { modelMacs } from '../../onnx/macs.js';
import { toBytes } from '../../onnx/to-bytes.js';
import { baseName } from '../../report/format.js';
import { removableBranches, removeBranches } from '../../pruning/branches.js';
import type { RunControl } from '../../progress.js';
import { measureLatency, TIMED_TOGETHER } from '../../runtime/latency.js';
import { traceShapes, type TracedValues } from '../../runtime/trace.js';
import type { StudentCost } from '../../distillation/selection.js';
import { buildNetwork } from '../../zoo/build.js';
import { proposedStudents, type ImageTask } from '../../zoo/candidates.js';
import { narrowedName, narrowedTeacher } from './narrowed.js';
import { withInputNamed } from '../train/trainee.js';
import type { Workspace } from '../workspace.js';

export interface StudentCandidate {
  readonly name: string;
  /** Whether its weights are random. */
  readonly isNew: boolean;
  readonly model: ModelProto;
  readonly cost: StudentCost;
}

/**
 * Every candidate with bytes and MACs.
 * @param home of the teacher
 * @throws FlowCompressError `unsupported` where there is none; `aborted`
 */
export async function studentCandidates(
  home: Workspace,
  seed: number,
  control: RunControl,
): Promise<StudentCandidate[]> {
  const { engine, feedsFor, opened } = home;
  const graph = new Graph(opened.model);
  const shapes = await traceShapes(engine, opened.model, feedsFor(1));
  const task = imageTaskOf(home, graph, shapes);
  const found: StudentCandidate[] = [];
  const proposed = task ? proposedStudents(task) : [];
  for (const [i, { name, architecture, options }] of proposed.entries()) {
    throwIfAborted(control.signal);
    control.onProgress?.({ stage: 'build candidates', done: i, total: proposed.length, detail: name });
    const { model: built, macs } = buildNetwork(architecture, { ...options, seed });
    const model = withInputNamed(built, home.inputs[0]!.name);
    found.push({ name, isNew: true, model, cost: { bytes: toBytes(model).length, macs } });
  }
  if (home.classes === undefined) found.push(...(await narrowerTeachers(home, seed, control)));
  const shallower = halfOf(opened.model, graph, shapes);
  if (shallower) {
    const own = new Graph(shallower);
    const macs = modelMacs(own, await traceShapes(engine, shallower, feedsFor(1)), 1);
    const name = `${baseName(opened.name)}, every second block`;
    found.push({ name, isNew: false, model: shallower, cost: { bytes: toBytes(shallower).length, macs } });
  }
  control.onProgress?.({ stage: 'build candidates', done: proposed.length, total: proposed.length });
  if (found.length === 0)
    throw new FlowCompressError('unsupported', 'No student can be proposed for this teacher.', {
      node: opened.name,
      hint: 'It takes no square images and has no residual blocks that could go: name a --student.',
    });
  return found;
}

/** Shares of the teacher's width: from about half of its parameters on. */
const WIDTHS = [0.7, 0.5, 0.35, 0.25];

/** The teacher's own graph with fewer units in every layer, where the zoo has nothing: for models without class scores. */
async function narrowerTeachers(
  { engine, feedsFor, opened }: Workspace,
  seed: number,
  control: RunControl,
): Promise<StudentCandidate[]> {
  const found: StudentCandidate[] = [];
  for (const width of WIDTHS) {
    throwIfAborted(control.signal);
    const model = await narrowedTeacher(engine, opened.model, width, seed, opened.name).catch((error: unknown) => {
      if (error instanceof FlowCompressError && error.code === 'unsupported') return undefined;
      throw error;
    });
    if (!model) break;
    const macs = modelMacs(new Graph(model), await traceShapes(engine, model, feedsFor(1)), 1);
    const name = narrowedName(opened.name, width);
    found.push({ name, isNew: true, model, cost: { bytes: toBytes(model).length, macs } });
  }
  return found;
}

/** Of a teacher that takes one batch of square images [N, C, S, S]. */
function imageTaskOf(
  { feedsFor, classes, inputs }: Workspace,
  graph: Graph,
  shapes: TracedValues,
): ImageTask | undefined {
  const [image] = Object.values(feedsFor(1));
  const [, channels = 0, height, width] = image!.dims;
  if (
    classes === undefined ||
    inputs.length !== 1 ||
    image!.type !== 'float32' ||
    image!.dims.length !== 4 ||
    height !== width
  )
    return undefined;
  const layers = findLayers(graph);
  const depth = findAttention(graph, layers, shapes).blocks.length;
  const [embedding] = layers;
  const patchSize = embedding?.op === 'Conv' ? embedding.dims[2] : undefined;
  const isVit = depth > 0 && patchSize !== undefined && patchSize > 1 && height! % patchSize === 0;
  return {
    ...{ inputSize: height!, channels, classes },
    ...(isVit && { transformer: { patchSize, depth, channels: embedding!.dims[0]! } }),
  };
}

/** Without every second residual branch, of transformers without every second layer; its weights are kept. */
function halfOf(model: ModelProto, graph: Graph, shapes: TracedValues): ModelProto | undefined {
  const branches = removableBranches(graph, shapes);
  // Attention and MLP take turns.
  const together = findAttention(graph, findLayers(graph), shapes).blocks.length > 0 ? 2 : 1;
  const gone = branches.filter((_, i) => Math.floor(i / together) % 2 === 1);
  return gone.length === 0 ? undefined : removeBranches(model, new Set(gone.map(({ name }) => name)));
}

/** Timed runs of every candidate. */
const RUNS = 30;

/** Median milliseconds for one sample, timed in turns. */
export async function timedCandidates(
  { engine, feedsFor }: Workspace,
  models: readonly ModelProto[],
  control: RunControl,
): Promise<number[]> {
  const sessions = [];
  try {
    for (const model of models) {
      throwIfAborted(control.signal);
      sessions.push(await engine.createSession(toBytes(model), { config: TIMED_TOGETHER }));
    }
    const feeds = feedsFor(1);
    const results = await measureLatency(
      sessions.map((session) => ({ session, feeds })),
      { ...control, runs: RUNS, stage: 'time candidates' },
    );
    return results.map(({ medianMs }) => medianMs);
  } finally {
    for (const session of sessions) await session.release();
  }
}
