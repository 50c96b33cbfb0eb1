/**
 * Milliseconds and GFLOP/s of every form of a convolution's gradients in ONNX Runtime, on shapes of ResNet-20/56 and
 * MobileNetV2 for 32x32 inputs. The form that is chosen by default bears a star; `chooseForms` is set by this table.
 * Usage: node --import tsx bench/conv-gradients.ts [--threads 2] [--rounds 9] [--only NAME,...]
 *
 * Blocked forms are timed with the way into blocks and back, which a network mostly saves.
 * The time is the least of all rounds, all forms of a shape interleaved, since other work on the machine only adds to it.
 */
import { parseArgs } from 'node:util';
import { INPUT_GRADIENTS } from '../src/autodiff/rules/conv-input-gradient.js';
import { chooseForms, inputForms, weightForms, type ConvShape } from '../src/autodiff/rules/conv-shape.js';
import { WEIGHT_GRADIENTS } from '../src/autodiff/rules/conv-weight-gradient.js';
import { Graph, type Value } from '../src/onnx/graph.js';
import { intAttribute, intsAttribute } from '../src/onnx/attributes.js';
import { reshape, slice } from '../src/onnx/ops.js';
import { toBytes } from '../src/onnx/to-bytes.js';
import { nodeEngine } from '../src/node/onnxruntime.js';
import { layoutBlock } from '../src/runtime/layout-block.js';
import type { Feeds, Session } from '../src/runtime/engine.js';
import { info, tinyModel } from '../src/testing/graph-writing.js';
import { declareOutput, normals } from '../src/testing/tiny-models.js';
import { markdownTable, type Row } from './lib/table.js';

const { values: flags } = parseArgs({
  options: {
    threads: { type: 'string', default: '2' },
    rounds: { type: 'string', default: '9' },
    only: { type: 'string' },
  },
});

const engine = nodeEngine({ threads: Number(flags.threads) });
const block = await layoutBlock(engine);

interface Layer {
  readonly name: string;
  readonly batch: number;
  readonly shape: ConvShape;
}

/** A square convolution that keeps the size, or divides it by the stride. */
function layer(
  name: string,
  batch: number,
  [inChannels, outChannels, size]: readonly [number, number, number],
  { kernel = 3, stride = 1, groups = 1 } = {},
): Layer {
  const both = (value: number): number[] => [value, value];
  const pad = (kernel - 1) / 2;
  return {
    name,
    batch,
    shape: {
      ...{ inChannels, outChannels, groups, input: both(size), output: both(Math.ceil(size / stride)) },
      ...{ kernel: both(kernel), strides: both(stride), dilations: both(1), padBegin: both(pad), padEnd: both(pad) },
      ...{ samples: batch, block },
    },
  };
}

const LAYERS: readonly Layer[] = [
  layer('resnet stem', 128, [3, 16, 32]),
  layer('resnet 16x32x32', 128, [16, 16, 32]),
  layer('resnet 32x16x16', 128, [32, 32, 16]),
  layer('resnet 64x8x8', 128, [64, 64, 8]),
  layer('resnet 16-32 /2', 128, [16, 32, 32], { stride: 2 }),
  layer('resnet 32-64 /2', 128, [32, 64, 16], { stride: 2 }),
  layer('shortcut 16-32 /2', 128, [16, 32, 32], { stride: 2, kernel: 1 }),
  layer('mobilenet 96-24 1x1', 64, [96, 24, 32], { kernel: 1 }),
  layer('mobilenet 32-192 1x1', 64, [32, 192, 16], { kernel: 1 }),
  layer('mobilenet 96-576 1x1', 64, [96, 576, 8], { kernel: 1 }),
  layer('mobilenet dw 144', 64, [144, 144, 32], { groups: 144 }),
  layer('mobilenet dw 144 /2', 64, [144, 144, 32], { groups: 144, stride: 2 }),
  layer('mobilenet dw 192', 64, [192, 192, 16], { groups: 192 }),
  layer('mobilenet dw 576', 64, [576, 576, 8], { groups: 576 }),
  layer('mobilenet dw 960', 64, [960, 960, 4], { groups: 960 }),
];

type Operand = 'x' | 'w' | 'g';

interface Contender {
  readonly what: 'forward' | 'input' | 'weight';
  readonly form: string;
  readonly chosen: boolean;
  readonly build: (graph: Graph, operands: Readonly<Record<Operand, Value>>) => Value;
}

function contenders(shape: ConvShape): Contender[] {
  const chosen = chooseForms(shape);
  const forward: Contender['build'] = (graph, { x, w }) =>
    graph.insertOp(
      'Conv',
      [x, w],
      [
        intAttribute('group', shape.groups),
        intsAttribute('strides', shape.strides),
        intsAttribute('pads', [...shape.padBegin, ...shape.padEnd]),
      ],
    );
  return [
    { what: 'forward', form: 'conv', chosen: true, build: forward },
    ...inputForms(shape).map((form) => ({
      ...{ what: 'input' as const, form, chosen: form === chosen.input },
      build: (graph: Graph, { w, g }: Record<Operand, Value>) => INPUT_GRADIENTS[form](graph, shape, g, w),
    })),
    ...weightForms(shape).map((form) => ({
      ...{ what: 'weight' as const, form, chosen: form === chosen.weight },
      build: (graph: Graph, { x, g }: Record<Operand, Value>) => WEIGHT_GRADIENTS[form](graph, shape, x, g),
    })),
  ];
}

const product = (sizes: readonly number[]): number => sizes.reduce((a, b) => a * b, 1);

/** A session that gives out one element, so that the time is not that of carrying the result to JavaScript. */
async function open(dims: Readonly<Record<Operand, readonly number[]>>, contender: Contender): Promise<Session> {
  const inputs = Object.entries(dims).map(([name, size]) => info(name, size));
  const graph = new Graph(tinyModel({ inputs, outputs: [], nodes: [] }));
  const [x, w, g] = ['x', 'w', 'g'].map((name) => graph.mustGet(name));
  const result = contender.build(graph, { x, w, g });
  declareOutput(graph, slice(graph, reshape(graph, result, [-1]), [0], [0], [1], [1]), [1]);
  graph.dropUnreadInputs();
  return engine.createSession(toBytes(graph.toModel()));
}

async function measure({ batch, shape }: Layer): Promise<Row[]> {
  const dims = {
    x: [batch, shape.inChannels, ...shape.input],
    w: [shape.outChannels, shape.inChannels / shape.groups, ...shape.kernel],
    g: [batch, shape.outChannels, ...shape.output],
  };
  const operands: Feeds = Object.fromEntries(
    Object.entries(dims).map(([key, size], i) => [
      key,
      { type: 'float32' as const, dims: size, data: normals(product(size), i + 1) },
    ]),
  );
  const running = [];
  for (const contender of contenders(shape)) {
    const session = await open(dims, contender);
    const feeds = Object.fromEntries(session.inputs.map((input) => [input.name, operands[input.name]!]));
    await session.run(feeds);
    running.push({ contender, session, feeds, least: Infinity });
  }
  for (let round = 0; round < Number(flags.rounds); round++) {
    for (const entry of running) {
      const start = performance.now();
      await entry.session.run(entry.feeds);
      entry.least = Math.min(entry.least, performance.now() - start);
    }
  }
  const flop = 2 * product(dims.g) * product(dims.w.slice(1));
  const rows: Row[] = [];
  for (const { contender, session, least } of running) {
    const { what, form, chosen } = contender;
    rows.push([what, chosen ? `${form} *` : form, least.toFixed(2), (flop / least / 1e6).toFixed(1)]);
    await session.release();
  }
  return rows;
}

const only = flags.only?.split(',');
for (const each of LAYERS) {
  if (only !== undefined && !only.some((part) => each.name.includes(part))) continue;
  console.log(`${markdownTable([each.name, 'form', 'ms', 'GFLOP/s'], await measure(each), [0, 1])}\n`);
}
