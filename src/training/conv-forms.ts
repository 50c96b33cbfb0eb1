/** Which form of a convolution's gradients is the fastest on the machine at hand: all are timed, once. */
import type { ModelProto } from 'onnx-buf';
import { z } from 'zod';
import { convShape } from '../autodiff/rules/conv.js';
import { INPUT_GRADIENTS } from '../autodiff/rules/conv-input-gradient.js';
import {
  chooseForms,
  inputForms,
  weightForms,
  type ConvForms,
  type ConvShape,
  type FormsFor,
  type InputForm,
  type WeightForm,
} from '../autodiff/rules/conv-shape.js';
import { WEIGHT_GRADIENTS } from '../autodiff/rules/conv-weight-gradient.js';
import type { Shape } from '../autodiff/rule.js';
import { FlowCompressError } from '../errors.js';
import { canBlock, fromBlocked, toBlocked, wholeBlocks } from '../onnx/blocked.js';
import { DataType } from '../onnx/dtypes.js';
import { emptyModel, Graph, type Value } from '../onnx/graph.js';
import { reshape, slice } from '../onnx/ops.js';
import { keepBlocked } from '../onnx/passes/keep-blocked.js';
import { simplify } from '../onnx/passes/simplify.js';
import { toBytes } from '../onnx/to-bytes.js';
import { tensorInfo } from '../onnx/value-info.js';
import { pause, type RunControl } from '../progress.js';
import type { Engine } from '../runtime/engine.js';
import type { MachineCache } from '../runtime/machine-cache.js';
import { exposeValue } from '../runtime/trace.js';

/** Where measurements are kept, and what they hang on: engine, version, processor, threads. */
export interface Machine {
  readonly key: string;
  readonly cache: MachineCache;
}

/** Raised when forms change: what was measured before is void. */
const REVISION = 1;
/** Multiplications per step below which no choice pays for its measurement. */
const LEAST_WORK = 3e7;
/** A form that is faster by less than this is no reason to leave the default: times vary. */
const CLEARLY_FASTER = 0.85;
const RUNS = 5;

/** The convolutions of a graph whose gradients can be asked for, each shape once. Those of sizes that vary are left out. */
export function convShapesOf(graph: Graph, shapes: ReadonlyMap<string, Shape>, block: number | undefined): ConvShape[] {
  const found = new Map<string, ConvShape>();
  for (const node of graph.nodes) {
    if (!node.is('Conv')) continue;
    const shapeOf = (value: Value): Shape => shapes.get(value.name) ?? [undefined, undefined];
    const shape = shapeUnlessVarying(() => convShape({ node, shapeOf, block }));
    if (shape) found.set(keyOf(shape), shape);
  }
  return [...found.values()];
}

function shapeUnlessVarying(read: () => ConvShape): ConvShape | undefined {
  try {
    return read();
  } catch (error) {
    if (error instanceof FlowCompressError && error.code === 'unsupported') return undefined;
    throw error;
  }
}

/**
 * The fastest forms of these convolutions, the default ones (`chooseForms`) for all others and for small ones. Shapes that the
 * machine remembers are not timed again.
 * @throws FlowCompressError `aborted`
 */
export async function measuredForms(
  engine: Engine,
  shapes: readonly ConvShape[],
  machine: Machine,
  { signal, onProgress }: RunControl = {},
): Promise<FormsFor> {
  const chosen = new Map<string, ConvForms>();
  const unknown: ConvShape[] = [];
  for (const shape of shapes.filter((each) => workOf(each) >= LEAST_WORK)) {
    const known = parse(await machine.cache.read(cacheKey(machine, shape)), shape);
    if (known) chosen.set(keyOf(shape), known);
    else unknown.push(shape);
  }
  for (const [done, shape] of unknown.entries()) {
    onProgress?.({ stage: 'time gradients of convolutions', done, total: unknown.length });
    await pause(signal);
    const forms = await confirmedForms(shape, () => timeForms(engine, shape, RUNS));
    await machine.cache.write(cacheKey(machine, shape), JSON.stringify(forms));
    chosen.set(keyOf(shape), forms);
  }
  return (shape) => chosen.get(keyOf(shape)) ?? chooseForms(shape);
}

/** A form must be clearly faster than the default twice: the machine may have been at other work. */
export async function confirmedForms(shape: ConvShape, measure: () => Promise<FormTime[]>): Promise<ConvForms> {
  const standard = chooseForms(shape);
  const first = fastestForms(shape, await measure());
  if (first.input === standard.input && first.weight === standard.weight) return standard;
  const second = fastestForms(shape, await measure());
  return {
    input: first.input === second.input ? first.input : standard.input,
    weight: first.weight === second.weight ? first.weight : standard.weight,
  };
}

export type FormTime = { readonly milliseconds: number } & (
  { readonly of: 'input'; readonly form: InputForm } | { readonly of: 'weight'; readonly form: WeightForm }
);

/** The default, unless another is clearly faster. */
export function fastestForms(shape: ConvShape, times: readonly FormTime[]): ConvForms {
  const fastest = <F>(standard: F, of: readonly { readonly form: F; readonly milliseconds: number }[]): F => {
    const best = of.reduce((a, b) => (b.milliseconds < a.milliseconds ? b : a));
    const expected = of.find(({ form }) => form === standard)?.milliseconds ?? Infinity;
    return best.milliseconds < CLEARLY_FASTER * expected ? best.form : standard;
  };
  const { input, weight } = chooseForms(shape);
  return {
    input: fastest<InputForm>(
      input,
      times.filter((time) => time.of === 'input'),
    ),
    weight: fastest<WeightForm>(
      weight,
      times.filter((time) => time.of === 'weight'),
    ),
  };
}

const product = (sizes: readonly number[]): number => sizes.reduce((a, b) => a * b, 1);

function dimsOf({ samples = 1, inChannels, outChannels, groups, input, output, kernel }: ConvShape) {
  return {
    x: [samples, inChannels, ...input],
    w: [outChannels, inChannels / groups, ...kernel],
    g: [samples, outChannels, ...output],
  };
}

function workOf(shape: ConvShape): number {
  const { w, g } = dimsOf(shape);
  return product(g) * product(w.slice(1));
}

/**
 * Milliseconds of every form: the least of some runs, as other work on the machine only adds. The default form is first; those
 * that are far behind the fastest run once, and those whose copies of the input would take much memory not at all.
 * Where the engine has a blocked layout, everything comes in blocks and goes back into them, as it does in a network.
 */
export async function timeForms(engine: Engine, shape: ConvShape, runs: number): Promise<FormTime[]> {
  const standard = chooseForms(shape);
  const inputs = defaultFirst(inputForms(shape), standard.input);
  const weights = defaultFirst(weightForms(shape), standard.weight).filter((form) => isAffordable(shape, form));
  const times: FormTime[] = [];
  for (const form of inputs) {
    const model = gradientModel(shape, 'input', (graph, { w, g }) => INPUT_GRADIENTS[form](graph, shape, g, w));
    times.push({ of: 'input', form, milliseconds: await leastTime(engine, model, runs, leastOf(times, 'input')) });
  }
  for (const form of weights) {
    const model = gradientModel(shape, 'weight', (graph, { x, g }) => WEIGHT_GRADIENTS[form](graph, shape, x, g));
    times.push({ of: 'weight', form, milliseconds: await leastTime(engine, model, runs, leastOf(times, 'weight')) });
  }
  return times;
}

function defaultFirst<F>(forms: readonly F[], standard: F): F[] {
  return [standard, ...forms.filter((form) => form !== standard)];
}

function leastOf(times: readonly FormTime[], of: FormTime['of']): number {
  return Math.min(...times.filter((time) => time.of === of).map(({ milliseconds }) => milliseconds));
}

/** Bytes of copies of the input, beyond which a form is not tried. */
const MOST_COPIES = 2 ** 30;

function isAffordable(shape: ConvShape, form: WeightForm): boolean {
  const { samples = 1, inChannels, kernel, output } = shape;
  const copies = 4 * samples * inChannels * product(kernel) * product(output);
  return form === 'blocked' || form === 'conv' || copies <= MOST_COPIES;
}

/** As often as long as the fastest so far; the first run of a session is slower than those that follow. */
const OUT_OF_REACH = 2;

async function leastTime(engine: Engine, model: ModelProto, runs: number, fastest: number): Promise<number> {
  const session = await engine.createSession(toBytes(model));
  try {
    const feeds = Object.fromEntries(
      session.inputs.map(({ name, dims }) => {
        const sizes = dims.map(Number);
        return [name, { type: 'float32' as const, dims: sizes, data: numbers(product(sizes)) }];
      }),
    );
    let least = Infinity;
    for (let run = 0; run <= runs; run++) {
      const start = performance.now();
      await session.run(feeds);
      least = Math.min(least, performance.now() - start);
      if (least > OUT_OF_REACH * fastest) break;
    }
    return least;
  } finally {
    await session.release();
  }
}

/** Gives out one element, so that the time is not that of carrying the result to JavaScript. */
function gradientModel(
  shape: ConvShape,
  of: 'input' | 'weight',
  build: (graph: Graph, operands: Readonly<Record<'x' | 'w' | 'g', Value>>) => Value,
): ModelProto {
  const { block, kernel } = shape;
  const graph = new Graph(emptyModel(15));
  const dims = dimsOf(shape);
  const isBlocked = (channels: number): boolean => block !== undefined && kernel.length === 2 && canBlock(channels);
  const activation = (name: 'x' | 'g'): Value => {
    const [samples, channels, ...sizes] = dims[name] as [number, number, ...number[]];
    if (!isBlocked(channels)) return graph.addInput(tensorInfo(name, DataType.FLOAT, dims[name]));
    const info = tensorInfo(name, DataType.FLOAT, [samples, wholeBlocks(channels, block!), ...sizes]);
    return fromBlocked(graph, graph.addInput(info), channels);
  };
  const w = graph.addInput(tensorInfo('w', DataType.FLOAT, dims.w));
  const found = build(graph, { x: activation('x'), w, g: activation('g') });
  const result = of === 'input' && isBlocked(shape.inChannels) ? toBlocked(graph, found) : found;
  exposeValue(graph, slice(graph, reshape(graph, result, [-1]), [0], [0], [1], [1]));
  if (block !== undefined) keepBlocked(graph, block, new Map());
  simplify(graph);
  graph.removeDead();
  graph.dropUnreadInputs();
  return graph.toModel();
}

/** Neither zeros nor numbers so small that processors take their time over them. */
function numbers(count: number): Float32Array {
  return Float32Array.from({ length: count }, (_, i) => ((i * 7919) % 255) / 128 - 1);
}

function keyOf(shape: ConvShape): string {
  return JSON.stringify(Object.entries(shape).sort(([a], [b]) => (a < b ? -1 : 1)));
}

function cacheKey({ key }: Machine, shape: ConvShape): string {
  return `conv gradients ${String(REVISION)} ${key} ${keyOf(shape)}`;
}

const remembered = z.object({ input: z.string(), weight: z.string() });

/** Undefined for a text that is none, or names forms that do not go for the shape. */
function parse(text: string | undefined, shape: ConvShape): ConvForms | undefined {
  if (text === undefined) return undefined;
  try {
    const forms = remembered.parse(JSON.parse(text));
    const input = inputForms(shape).find((form) => form === forms.input);
    const weight = weightForms(shape).find((form) => form === forms.weight);
    return input && weight && { input, weight };
  } catch {
    return undefined;
  }
}
