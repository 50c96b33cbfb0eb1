/**
 * Milliseconds and GFLOP/s of every form of a convolution's gradients in ONNX Runtime, on shapes of ResNet-20/56 and
 * MobileNetV2 for 32x32 inputs, as training times them once per machine. The form that is chosen by default bears a star
 * (`chooseForms` is set by this table), the one that training takes here by a short measurement the sign `<`.
 * Usage: node --import tsx bench/conv-gradients.ts [--threads 2] [--rounds 9] [--only NAME,...]
 */
import { parseArgs } from 'node:util';
import { chooseForms, type ConvShape } from '../src/autodiff/rules/conv-shape.js';
import { nodeEngine } from '../src/node/onnxruntime.js';
import { layoutBlock } from '../src/runtime/layout-block.js';
import { fastestForms, timeForms } from '../src/training/conv-forms.js';
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

const product = (sizes: readonly number[]): number => sizes.reduce((a, b) => a * b, 1);

async function measure(shape: ConvShape): Promise<Row[]> {
  const { input, weight } = chooseForms(shape);
  const times = await timeForms(engine, shape, Number(flags.rounds));
  const taken = fastestForms(shape, times);
  const { samples, inChannels, outChannels, groups, kernel, output } = shape;
  const flop = 2 * samples! * outChannels * product(output) * (inChannels / groups) * product(kernel);
  return times.map(({ of, form, milliseconds }) => {
    const marks = [form === (of === 'input' ? input : weight) ? ' *' : '', form === taken[of] ? ' <' : ''];
    return [of, form + marks.join(''), milliseconds.toFixed(2), (flop / milliseconds / 1e6).toFixed(1)];
  });
}

const only = flags.only?.split(',');
for (const each of LAYERS) {
  if (only !== undefined && !only.some((part) => each.name.includes(part))) continue;
  console.log(`${markdownTable([each.name, 'form', 'ms', 'GFLOP/s'], await measure(each.shape), [0, 1])}\n`);
}
