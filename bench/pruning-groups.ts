/**
 * Dependency groups and random cuts of 30 % on every architecture of the zoo (small, with random weights) and on real models:
 * the cut model must give what the original with zeros in place of the removed weights gives.
 * Usage: node --import tsx bench/pruning-groups.ts [--assets FOLDER] [--only name,name] [--seed 1] [--threads 1]
 *
 * `effect` is how far the zeros move the outputs: where that is little, the difference proves little. Then the seconds for the
 * groups of a network of 200 convolutions, and for one cut in a model of 440 MB with the memory that it takes. Exit code 1
 * when a cut differs by more than 1e-5 of the largest output, or one of the times is missed.
 */
import { readdirSync } from 'node:fs';
import { basename, join, relative } from 'node:path';
import { parseArgs } from 'node:util';
import type { ModelProto } from 'onnx-buf';
import { prunableModel } from '../src/commands/prune/removable.js';
import { randomStream } from '../src/data/random.js';
import { openModel } from '../src/node/model-file.js';
import { nodeEngine } from '../src/node/onnxruntime.js';
import { intsAttribute } from '../src/onnx/attributes.js';
import { DataType } from '../src/onnx/dtypes.js';
import { emptyModel, Graph, type Value } from '../src/onnx/graph.js';
import { makeTensor } from '../src/onnx/tensor.js';
import { declaredDims, tensorInfo } from '../src/onnx/value-info.js';
import { checkCut, relativeDifference } from '../src/pruning/check-cut.js';
import { cutUnits, maskedModel } from '../src/pruning/cut.js';
import { dependencyGroups } from '../src/pruning/groups.js';
import { selectUnits } from '../src/pruning/selection.js';
import type { Feeds } from '../src/runtime/engine.js';
import { guessFeeds } from '../src/runtime/made-up-feeds.js';
import { runOnce } from '../src/runtime/run-once.js';
import { randomSelection, stirred } from '../src/testing/random-cuts.js';
import { smallNetwork, zooFeeds } from '../src/testing/zoo-models.js';
import { ARCHITECTURES } from '../src/zoo/registry.js';
import { findPlaces, note, PLACE_FLAGS } from './lib/places.js';
import { markdownTable, type Row } from './lib/table.js';

const { values: flags } = parseArgs({
  options: {
    assets: PLACE_FLAGS.assets,
    only: { type: 'string' },
    seed: { type: 'string', default: '1' },
    threads: { type: 'string', default: '1' },
  },
});

const FRACTION = 0.3;
const engine = nodeEngine({ threads: Number(flags.threads) });
const seed = Number(flags.seed);

interface Subject {
  readonly name: string;
  readonly open: () => Promise<{ model: ModelProto; feedsFor: (rows: number) => Feeds; fixedBatch?: number }>;
}

/** Standard normal numbers and small integers in the shapes that the model declares. */
function feedsOf(model: ModelProto): (rows: number) => Feeds {
  return (rows) => {
    const random = randomStream(seed);
    const { feeds } = guessFeeds(new Graph(model), rows);
    for (const { type, data } of Object.values(feeds)) {
      if (type === 'float32') (data as Float32Array).forEach((_, i, all) => (all[i] = random.normal()));
      if (type === 'int32') (data as Int32Array).forEach((_, i, all) => (all[i] = random.int(100)));
    }
    return feeds;
  };
}

function subjects(assets: string | undefined): Subject[] {
  const zoo = ARCHITECTURES.map(({ name }): Subject => ({
    name,
    open: () => {
      const model = stirred(smallNetwork(name, { width: name === 'vit-ti' || name === 'bert-tiny' ? 1 : 0.5 }), seed);
      return Promise.resolve({ model, feedsFor: (rows: number) => zooFeeds(model, rows) });
    },
  }));
  const files = assets === undefined ? [] : readdirSync(assets, { recursive: true, encoding: 'utf8' });
  const real = files
    .filter((file) => file.endsWith('.onnx'))
    .sort()
    .map((file): Subject => ({
      name: relative('', basename(file)),
      open: async () => {
        const { model } = await openModel(join(assets!, file));
        const graph = new Graph(model);
        const batches = graph.inputs
          .filter((input) => graph.isFed(input))
          .map((input) => declaredDims(input.info)?.[0]);
        const fixedBatch = batches.find((rows) => typeof rows === 'number' && rows > 0) as number | undefined;
        return { model, feedsFor: feedsOf(model), fixedBatch };
      },
    }));
  return [...zoo, ...real];
}

const secondsSince = (start: number): number => (performance.now() - start) / 1000;

async function check({ name, open }: Subject): Promise<Row> {
  const { model: original, feedsFor, fixedBatch } = await open();
  const { model, shapes, rows, warnings } = await prunableModel(engine, original, feedsFor, { fixedBatch });
  for (const warning of warnings) note(`${name}: ${warning}`);
  let start = performance.now();
  const dependencies = dependencyGroups(model, shapes);
  const forGroups = secondsSince(start);
  const { groups, fixed } = dependencies;
  const units = groups.reduce((sum, group) => sum + group.units.length, 0);
  const counts = [String(groups.length), String(units), String(fixed.length), forGroups.toFixed(3)];
  const selection = randomSelection(dependencies, FRACTION, seed);
  start = performance.now();
  const cut = cutUnits(model, selection);
  const forCut = secondsSince(start);
  const feeds = feedsFor(rows);
  const before = await runOnce(engine, model, feeds);
  const masked = await runOnce(engine, maskedModel(model, selection), feeds);
  const effect = Math.max(...Object.keys(before).map((output) => relativeDifference(before[output], masked[output])));
  const difference = await checkCut(engine, model, cut, selection, feeds);
  return [name, ...counts, forCut.toFixed(3), effect.toExponential(1), difference.toExponential(1)];
}

/** Residual blocks of two convolutions with normalization, 200 in all. */
function deepNetwork(width: number): { model: ModelProto; shapes: Map<string, { dims: readonly number[] }> } {
  const graph = new Graph(emptyModel(17));
  const dims = [2, width, 28, 28];
  const shapes = new Map<string, { dims: readonly number[] }>();
  const know = (value: Value): Value => (shapes.set(value.name, { dims }), value);
  const weight = (name: string, size: readonly number[]): Value => {
    const count = size.reduce((a, b) => a * b, 1);
    return graph.addInitializer(makeTensor(name, DataType.FLOAT, size, new Float32Array(count).fill(0.1)));
  };
  const input = graph.addInput(tensorInfo('x', DataType.FLOAT, dims));
  shapes.set('x', { dims });
  const pads = [intsAttribute('pads', [1, 1, 1, 1])];
  const conv = (x: Value, name: string): Value => {
    const y = know(graph.insertOp('Conv', [x, weight(`${name}.w`, [width, width, 3, 3])], pads));
    const norm = ['scale', 'shift', 'mean', 'var'].map((part) => weight(`${name}.${part}`, [width]));
    return know(graph.insertOp('BatchNormalization', [y, ...norm]));
  };
  let x = conv(input, 'stem');
  for (let i = 0; i < 99; i++) {
    const y = conv(know(graph.insertOp('Relu', [conv(x, `${String(i)}.a`)])), `${String(i)}.b`);
    x = know(graph.insertOp('Relu', [know(graph.insertOp('Add', [x, y]))]));
  }
  const last = conv(x, 'last');
  last.info = tensorInfo(last.name, DataType.FLOAT, dims);
  graph.outputs.push(last);
  return { model: graph.toModel(), shapes };
}

/** A chain of 105 MatMuls of 4.2 MB each. */
function largeModel(): { model: ModelProto; shapes: Map<string, { dims: readonly number[] }> } {
  const side = 1024;
  const graph = new Graph(emptyModel(17));
  const shapes = new Map<string, { dims: readonly number[] }>([['x', { dims: [2, side] }]]);
  let x = graph.addInput(tensorInfo('x', DataType.FLOAT, [2, side]));
  for (let i = 0; i < 105; i++) {
    const w = makeTensor(`w${String(i)}`, DataType.FLOAT, [side, side], new Float32Array(side * side).fill(i));
    x = graph.insertOp('MatMul', [x, graph.addInitializer(w)], [], `y${String(i)}`);
    shapes.set(x.name, { dims: [2, side] });
  }
  x.info = tensorInfo(x.name, DataType.FLOAT, [2, side]);
  graph.outputs.push(x);
  return { model: graph.toModel(), shapes };
}

function timeDeep(): void {
  const { model, shapes } = deepNetwork(256);
  const start = performance.now();
  const { groups } = dependencyGroups(model, shapes);
  const seconds = secondsSince(start);
  if (seconds > 1) process.exitCode = 1;
  console.log(`\n200 convolutions: ${String(groups.length)} groups in ${seconds.toFixed(2)} s (at most 1)`);
}

function timeLarge(): void {
  const { model, shapes } = largeModel();
  const bytes = (each: ModelProto): number =>
    each.graph!.initializer.reduce((sum, { rawData }) => sum + rawData.length, 0);
  const memory = process.memoryUsage().arrayBuffers;
  const start = performance.now();
  const dependencies = dependencyGroups(model, shapes);
  const forGroups = secondsSince(start);
  const units = Array.from({ length: 300 }, (_, i) => 3 * i);
  const cut = cutUnits(model, selectUnits(dependencies, [{ group: 50, units }]));
  const seconds = secondsSince(start);
  const grown = process.memoryUsage().arrayBuffers - memory;
  const old = new Set(model.graph!.initializer.map(({ rawData }) => rawData));
  const copied = cut.graph!.initializer.filter(({ rawData }) => !old.has(rawData)).length;
  if (seconds > 5 || copied > 2) process.exitCode = 1;
  const mb = (count: number): string => (count / 1e6).toFixed(0);
  console.log(
    `${mb(bytes(model))} MB: groups ${forGroups.toFixed(2)} s, with the cut of one layer ${seconds.toFixed(2)} s (at most 5); ` +
      `${String(copied)} of ${String(old.size)} weights written anew, ${mb(grown)} MB of memory more`,
  );
}

async function main(): Promise<void> {
  const only = flags.only?.split(',');
  const rows: Row[] = [];
  for (const subject of subjects(findPlaces({ assets: flags.assets }).assets)) {
    if (only && !only.includes(subject.name)) continue;
    try {
      rows.push(await check(subject));
    } catch (error) {
      process.exitCode = 1;
      rows.push([subject.name, '', '', '', '', '', '', (error as Error).message]);
    }
    note(rows[rows.length - 1].join(' | '));
  }
  const header = ['model', 'groups', 'units', 'fixed lines', 'groups, s', 'cut, s', 'effect', 'difference'];
  console.log(markdownTable(header, rows));
  if (only) return;
  timeDeep();
  timeLarge();
}

await main();
