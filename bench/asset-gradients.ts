/**
 * Holds the gradients of real models, as training computes them in ONNX Runtime (float32), against central differences of the
 * same loss in float64, and against PyTorch's own (float64) where its environment is given; how far PyTorch's gradients in
 * float32 are from those stands beside it.
 * Usage: node --import tsx bench/asset-gradients.ts --assets FOLDER [--peers ENVIRONMENT] [--only name,name] [--seed 1]
 *
 * The loss is the cross-entropy of class scores against random classes, or (p - t)^2 of a random projection p of all float
 * outputs. Differences: along a random direction per parameter tensor (or group of them) and three of all together, each
 * element moved in proportion to the root mean square of its tensor: by 1e-6 and 1e-7 of it and, until two neighbouring steps
 * agree to 1e-4, by 1e-8, 1e-5 and 1e-4. The smaller step of the two that agree best counts, whatever the gradient says; how
 * far they are apart is shown as their doubt. An error is relative to the larger of
 * the difference and the length of the gradient in these proportions (that of the whole gradient times 1e-6 at least, for
 * gradients that are zero). PyTorch: length of the difference over length of its gradient, per tensor, with that same least
 * value. Exit code 1 when something is off by more than 1e-3. A model that is refused is listed with the refusal.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { z } from 'zod';
import { writeNpz } from '../src/data/npz-write.js';
import { FlowCompressError } from '../src/errors.js';
import { nodeEngine } from '../src/node/onnxruntime.js';
import { toBytes } from '../src/onnx/to-bytes.js';
import type { Feeds, HostTensor } from '../src/runtime/engine.js';
import { OPTIMIZER_DEFAULTS } from '../src/training/optimizers.js';
import { readParameters } from '../src/training/parameters.js';
import { buildTrainingGraph } from '../src/training/training-graph.js';
import { GRADIENT_CASES, type GradientCase } from './lib/gradient-cases.js';
import { compareDifferences, NOTHING, openLoss, type Worst } from './lib/gradient-differences.js';
import { makeTask, type Task } from './lib/gradient-task.js';
import { existing, findPlaces, note, PLACE_FLAGS } from './lib/places.js';
import { markdownTable, type Row } from './lib/table.js';

const { values: flags } = parseArgs({
  options: {
    ...PLACE_FLAGS,
    only: { type: 'string' },
    seed: { type: 'string', default: '1' },
    threads: { type: 'string', default: '2' },
  },
});

const LIMIT = 1e-3;
const engine = nodeEngine({ threads: Number(flags.threads) });
const seed = Number(flags.seed);

const NO_UPDATE = {
  ...{ optimizer: 'sgd' as const, optimizerSettings: OPTIMIZER_DEFAULTS, weightDecay: 0 },
  ...{ temperature: 1, seed: 0 },
};

/** The gradient [P] as the first of two accumulated steps leaves it: half of it, exactly. */
async function gradientOf(task: Task): Promise<Float32Array> {
  const { model, parameters, loss, output, feeds, target, batchStatistics } = task;
  const batchSize = Object.values(feeds)[0].dims[0];
  const options = { ...NO_UPDATE, loss, output, batchSize, parameters, accumulate: 2 };
  const graph = await buildTrainingGraph(
    engine,
    model,
    { ...options, batchNorm: batchStatistics ? 'updated' : 'frozen' },
    // The batch size is the only one that there is: shapes must not be continued from others.
    () => feeds,
  );
  const vector = (data: Float32Array): HostTensor => ({ type: 'float32', dims: [data.length], data });
  const flat = readParameters(model, parameters);
  const { accumulated, vectors, target: targetName } = graph.names;
  const all: Feeds = { ...feeds, [targetName]: target, [accumulated!.input]: vector(new Float32Array(flat.length)) };
  for (const { kind, input } of vectors) {
    if (kind === 'parameters') all[input] = vector(flat);
    if (kind === 'buffers') all[input] = vector(readParameters(model, graph.buffers));
  }
  const session = await engine.createSession(toBytes(graph.gather!));
  try {
    const taken = Object.fromEntries(session.inputs.map(({ name }) => [name, all[name]]));
    const result = await session.run(taken, [accumulated!.output]);
    return (result[accumulated!.output].data as Float32Array).map((half) => 2 * half);
  } finally {
    await session.release();
  }
}

const peerSchema = z.object({ loss: z.number(), errors: z.array(z.number()), single: z.array(z.number()) });

interface Peer {
  readonly worst: Worst;
  readonly loss: number;
  /** The largest error of PyTorch's own gradients in float32. */
  readonly single: number;
}

/** PyTorch's gradients of the file itself, by bench/peers/onnx_gradients.py. */
function comparePeer(python: string, task: Task, gradient: Float32Array): Peer {
  const folder = mkdtempSync(join(tmpdir(), 'flow-compress-gradients-'));
  try {
    const { file, parameters, feeds, target, projection, output, loss, batchStatistics } = task;
    const arrays: Record<string, HostTensor> = { target };
    const keyed = (prefix: string, tensors: Readonly<Record<string, HostTensor>>): [string, string][] =>
      Object.entries(tensors).map(([name, tensor], i) => {
        arrays[`${prefix}${String(i)}`] = tensor;
        return [name, `${prefix}${String(i)}`];
      });
    let at = 0;
    const gradients = Object.fromEntries(
      parameters.map(({ name, dims, size }) => {
        const data = gradient.slice(at, (at += size));
        return [name, { type: 'float32' as const, dims, data }];
      }),
    );
    const job = {
      ...{ model: file, loss, output, batchStatistics, least: NOTHING, arrays: join(folder, 'arrays.npz') },
      ...{ feeds: keyed('x', feeds), projection: keyed('p', projection), gradients: keyed('g', gradients) },
    };
    writeFileSync(job.arrays, writeNpz(arrays));
    const script = fileURLToPath(new URL('peers/onnx_gradients.py', import.meta.url));
    const result = spawnSync(python, [script], {
      ...{ input: JSON.stringify(job), encoding: 'utf8' },
      env: { ...process.env, PYTHONDONTWRITEBYTECODE: '1' },
    });
    if (result.status !== 0)
      throw new Error(`PyTorch on ${file}: ${(result.stderr ?? '').trim().split('\n').at(-1) ?? ''}`);
    const { errors, loss: value, single } = peerSchema.parse(JSON.parse(result.stdout));
    const worst = errors.reduce<Worst>(
      (most, error, i) => (error <= most.error ? most : { error, where: parameters[i].name }),
      { error: 0, where: '' },
    );
    return { worst, loss: value, single: Math.max(0, ...single) };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const shown = (error: number): string => error.toExponential(1);

async function check(file: string, item: GradientCase, batchStatistics: boolean, python?: string): Promise<Row> {
  const start = performance.now();
  const name = batchStatistics ? `${item.name}, batch statistics` : item.name;
  const seconds = (): string => ((performance.now() - start) / 1000).toFixed(1);
  try {
    const task = await makeTask(engine, file, item, { seed, batchStatistics });
    const gradient = await gradientOf(task);
    const { at, session } = await openLoss(engine, task);
    const loss = await at(new Float64Array(gradient.length));
    const { worst, doubt, directions } = await compareDifferences(at, task, gradient, { groups: item.groups, seed });
    await session.release();
    const peer = python === undefined ? undefined : comparePeer(python, task, gradient);
    const lossError = peer && Math.abs(peer.loss - loss) / Math.abs(loss);
    const errors = [worst.error, peer?.worst.error ?? 0, lossError ?? 0];
    if (!errors.every((error) => error <= LIMIT)) process.exitCode = 1;
    const { parameters } = task;
    return [
      ...[name, `${String(gradient.length)} in ${String(parameters.length)}`, String(directions)],
      ...[shown(worst.error), worst.where, shown(doubt), peer ? shown(peer.worst.error) : '', peer?.worst.where ?? ''],
      ...[peer ? shown(peer.single) : '', lossError === undefined ? '' : shown(lossError), seconds()],
    ];
  } catch (error) {
    if (!(error instanceof FlowCompressError)) process.exitCode = 1;
    const { message, node } = error as FlowCompressError;
    return [name, '', '', '', `${message}${node === undefined ? '' : ` [${node}]`}`, '', '', '', '', '', seconds()];
  }
}

async function main(): Promise<void> {
  const { assets, python } = findPlaces(flags);
  if (assets === undefined) {
    process.exitCode = 2;
    return;
  }
  const only = flags.only?.split(',');
  const rows: Row[] = [];
  for (const item of GRADIENT_CASES) {
    if (only && !only.includes(item.name)) continue;
    const file = existing(assets, item.model);
    if (file === undefined) {
      note(`${item.model} is not there: skipped.`);
      continue;
    }
    for (const batchStatistics of item.batchStatistics ? [false, true] : [false]) {
      const row = await check(file, item, batchStatistics, python);
      note(row.join(' | '));
      rows.push(row);
    }
  }
  const header = [
    ...['model', 'parameters', 'directions', 'differences', 'worst at', 'their doubt'],
    ...['PyTorch', 'worst at', 'PyTorch in float32', 'its loss', 'seconds'],
  ];
  console.log(markdownTable(header, rows, [0, 4, 7]));
}

await main();
