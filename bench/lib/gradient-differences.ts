/** The slopes of a loss by central differences in float64, and how far a gradient is from them. */
import type { ModelProto } from 'onnx-buf';
import { randomStream, seedOf } from '../../src/data/random.js';
import { DataType } from '../../src/onnx/dtypes.js';
import { Graph } from '../../src/onnx/graph.js';
import { makeTensor } from '../../src/onnx/tensor.js';
import { toBytes } from '../../src/onnx/to-bytes.js';
import { tensorInfo } from '../../src/onnx/value-info.js';
import type { Engine, Session } from '../../src/runtime/engine.js';
import { exposeValue, traceShapes } from '../../src/runtime/trace.js';
import { meanLoss } from '../../src/training/losses.js';
import { readParameters, type Parameter } from '../../src/training/parameters.js';
import { enterTrainingMode } from '../../src/training/training-mode.js';
import { float64Feeds, float64Model, OFFSETS } from './float64-model.js';
import type { Task } from './gradient-task.js';

/** Powers of ten of the steps, in the order in which they are tried until two neighbours agree. */
const EXPONENTS = [-6, -7, -8, -5, -4];
/** Difference of two neighbouring slopes, relative to the slope, that is good enough. */
const AGREED = 1e-4;

/** Least length of a tensor's gradient, relative to that of all, below which it counts as zero. */
export const NOTHING = 1e-6;

export interface Worst {
  readonly error: number;
  readonly where: string;
}

/** The model with its loss as the only output, in float32. */
function lossModel({ model, output, target, loss, batchStatistics }: Task): { model: ModelProto; loss: string } {
  const graph = new Graph(model);
  graph.requireOpset(15);
  const value = graph.mustGet(output);
  graph.outputs.splice(0);
  exposeValue(graph, value);
  graph.removeDead();
  enterTrainingMode(graph, { batchNorm: batchStatistics ? 'updated' : 'frozen' });
  const wanted = graph.addInitializer(
    makeTensor(graph.uniqueName('target'), DataType.FLOAT, target.dims, target.data as Float32Array),
  );
  const rank = target.dims.length;
  const end = meanLoss(loss, { graph, output: graph.outputs[0], target: wanted, rank, temperature: 1 });
  end.info = tensorInfo(end.name, DataType.FLOAT, []);
  graph.outputs.splice(0, 1, end);
  graph.removeDead();
  return { model: graph.toModel(), loss: end.name };
}

/** Loss at given offsets [P] of the parameters. */
type LossAt = (offsets: Float64Array) => Promise<number>;

export async function openLoss(engine: Engine, task: Task): Promise<{ at: LossAt; session: Session }> {
  const { model, loss } = lossModel(task);
  const wide = float64Model(model, await traceShapes(engine, model, task.feeds), task.parameters);
  const session = await engine.createSession(toBytes(wide));
  const feeds = float64Feeds(task.feeds);
  const at: LossAt = async (data) => {
    const results = await session.run({ ...feeds, [OFFSETS]: { type: 'float64', dims: [data.length], data } });
    return results[loss].data[0] as number;
  };
  return { at, session };
}

/** Slope along a direction, and how well the two steps agree that it is taken from. */
async function slopeAlong(at: LossAt, direction: Float64Array): Promise<{ slope: number; doubt: number }> {
  const slopes = new Map<number, number>();
  let best = { slope: NaN, doubt: Infinity };
  for (const exponent of EXPONENTS) {
    const step = 10 ** exponent;
    const [up, down] = [await at(direction.map((d) => d * step)), await at(direction.map((d) => -d * step))];
    slopes.set(exponent, (up - down) / (2 * step));
    for (const larger of [exponent, exponent + 1]) {
      const [coarse, slope] = [slopes.get(larger), slopes.get(larger - 1)];
      if (coarse === undefined || slope === undefined) continue;
      const doubt = Math.abs(slope - coarse);
      if (doubt < best.doubt) best = { slope, doubt };
    }
    if (best.doubt <= AGREED * Math.abs(best.slope)) break;
  }
  return best;
}

interface Span {
  readonly name: string;
  readonly from: number;
  readonly to: number;
}

/** Tensors, or runs of them where that makes fewer. */
function spansOf(parameters: readonly Parameter[], groups = Infinity): Span[] {
  const size = Math.max(1, Math.ceil(parameters.length / groups));
  const spans: Span[] = [];
  let at = 0;
  for (let i = 0; i < parameters.length; i += size) {
    const part = parameters.slice(i, i + size);
    const to = at + part.reduce((sum, parameter) => sum + parameter.size, 0);
    const [first, last] = [part[0].name, part[part.length - 1].name];
    spans.push({ name: part.length === 1 ? first : `${first} to ${last}`, from: at, to });
    at = to;
  }
  return spans;
}

/** Root mean square of each element's tensor: what one step of a direction is measured in. */
function scalesOf(task: Task): Float64Array {
  const flat = readParameters(task.model, task.parameters);
  const scales = new Float64Array(flat.length);
  let at = 0;
  for (const { size } of task.parameters) {
    const own = flat.subarray(at, at + size);
    const rms = Math.sqrt(own.reduce((sum, x) => sum + x * x, 0) / size);
    scales.fill(Math.max(rms, 1e-3), at, at + size);
    at += size;
  }
  return scales;
}

const lengthOf = (values: Float64Array): number => Math.sqrt(values.reduce((sum, x) => sum + x * x, 0));

/** The worst relative error along all directions, and the worst doubt about a difference itself. */
export async function compareDifferences(
  at: LossAt,
  task: Task,
  gradient: Float32Array,
  { groups, seed }: { readonly groups?: number; readonly seed: number },
): Promise<{ worst: Worst; doubt: number; directions: number }> {
  const scales = scalesOf(task);
  const scaled = Float64Array.from(gradient, (g, i) => g * scales[i]);
  const least = NOTHING * lengthOf(scaled);
  const everything = { name: 'all parameters', from: 0, to: gradient.length };
  const spans = [...spansOf(task.parameters, groups), everything, everything, everything];
  let worst: Worst = { error: 0, where: '' };
  let doubt = 0;
  for (const [k, { name, from, to }] of spans.entries()) {
    const random = randomStream(seedOf(seed, 3, k));
    const direction = new Float64Array(gradient.length);
    for (let i = from; i < to; i++) direction[i] = scales[i] * random.normal();
    const numeric = await slopeAlong(at, direction);
    const analytic = gradient.reduce((sum, g, i) => sum + g * direction[i], 0);
    const size = Math.max(Math.abs(numeric.slope), lengthOf(scaled.subarray(from, to)), least);
    const error = Math.abs(analytic - numeric.slope) / size;
    doubt = Math.max(doubt, numeric.doubt / size);
    if (!(error <= worst.error)) worst = { error, where: name };
  }
  return { worst, doubt, directions: spans.length };
}
