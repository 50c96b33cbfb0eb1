/**
 * Keeps values in ONNX Runtime's blocked layout from one convolution to the next: what stands between is computed there too,
 * as long as it treats elements or channels alike. Factors and terms per channel become convolutions with a group per
 * channel, which are faster than broadcasting, and sums over positions become average pooling.
 */
import type { Graph, Node, Value } from '../graph.js';
import {
  averageBlocked,
  BLOCKED_DOMAIN,
  canBlock,
  filledUp,
  fromBlocked,
  scaleBlocked,
  toBlocked,
  wholeBlocks,
} from '../blocked.js';
import { axisFromStart } from '../axis.js';
import { insertStatistics } from '../batch-statistics.js';
import { DataType } from '../dtypes.js';
import { formula, reduce, reshape, slice } from '../ops.js';
import { readInts } from '../tensor.js';
import type { Shapes } from './block-convs.js';

/** Operators on elements; what they make of the zeros in channels that fill a block up is finite. */
const ELEMENTWISE = new Set([
  ...['Relu', 'LeakyRelu', 'Sigmoid', 'HardSigmoid', 'HardSwish', 'Tanh', 'Clip', 'Identity', 'Abs', 'Neg', 'Erf'],
  ...['Add', 'Sub', 'Mul', 'Sum', 'Max', 'Min', 'Cast'],
  ...['Greater', 'GreaterOrEqual', 'Less', 'LessOrEqual', 'Equal', 'Not', 'And', 'Or'],
]);

/** Those of them whose results are no floats and so have no way back to the plain layout. */
const LOGICAL = new Set(['Greater', 'GreaterOrEqual', 'Less', 'LessOrEqual', 'Equal', 'Not', 'And', 'Or']);

type Dims = readonly number[];

interface Work {
  readonly graph: Graph;
  readonly block: number;
  readonly shapeOf: (value: Value) => Dims | undefined;
  readonly shapes: Shapes;
  /** The same numbers in blocks, by plain value. */
  readonly twins: Map<Value, Value>;
}

/**
 * Rewrites in place. What is left unread by it is for the caller to remove; values of unknown shape stay as they are.
 * @param shapes those of new values are added
 */
export function keepBlocked(graph: Graph, block: number, shapes: Shapes): void {
  const work: Work = {
    ...{ graph, block, shapes, twins: new Map<Value, Value>() },
    shapeOf: (value) => {
      const shape = shapes.get(value.name) ?? graph.constant(value)?.dims.map(Number);
      return shape?.every((size) => size !== undefined) ? shape : undefined;
    },
  };
  for (const node of graph.nodes) visit(work, node);
}

function visit(work: Work, node: Node): void {
  const { graph, twins } = work;
  const output = node.outputs[0]!;
  if (node.is('ReorderOutput', BLOCKED_DOMAIN)) twins.set(output, node.inputs[0]!);
  const twin = node.inputs[0] && twins.get(node.inputs[0]);
  if (node.is('ReorderInput', BLOCKED_DOMAIN) && twin) graph.replaceUses(output, twin);
  if (node.domain !== '') return;
  if (node.is('BatchNormalization')) {
    if (twin && node.int('training_mode', 0) === 1) for (const part of expanded(work, node)) visit(work, part);
    return;
  }
  const dims = work.shapeOf(output);
  if (!dims) return;
  const value = reduced(work, node, dims);
  if (value) {
    work.shapes.set(value.name, dims);
    graph.replaceUses(output, value);
    return;
  }
  const blocked = elementwise(work, node, dims) ?? perChannel(work, node, dims);
  if (!blocked) return;
  twins.set(output, blocked);
  if (LOGICAL.has(node.opType) || (node.is('Cast') && node.int('to') !== DataType.FLOAT)) return;
  const back = fromBlocked(graph, blocked, dims[1]!);
  work.shapes.set(back.name, dims);
  twins.set(back, blocked);
  graph.replaceUses(output, back);
}

/** Sums and products, for which a plain operand is brought into blocks: the result is likely to be wanted there. */
const ARITHMETIC = new Set(['Add', 'Sub', 'Mul', 'Sum', 'Max', 'Min']);

/** The operator itself, where every operand has the shape of the result, or is one number. */
function elementwise({ graph, shapeOf, twins }: Work, node: Node, dims: Dims): Value | undefined {
  if (!ELEMENTWISE.has(node.opType) || !node.inputs.some((input) => input && twins.has(input))) return undefined;
  const operands: (Value | undefined)[] = [];
  for (const input of node.inputs) {
    const twin = input && twins.get(input);
    const constant = graph.constant(input);
    const isWhole = input && shapeOf(input)?.join() === dims.join();
    if (twin && isWhole) operands.push(twin);
    else if (isWhole && !constant && ARITHMETIC.has(node.opType) && canBlock(dims[1]!))
      operands.push(toBlocked(graph, input));
    else if (!input || (constant && constant.dims.every((size) => Number(size) === 1))) operands.push(input);
    else return undefined;
  }
  return graph.insertOp(node.opType, operands, [...node.attributes.values()]);
}

/** Add, Sub and Mul of a blocked value and one number per channel. */
function perChannel(work: Work, node: Node, dims: Dims): Value | undefined {
  const { graph, block, shapeOf, twins } = work;
  if (!['Add', 'Sub', 'Mul'].includes(node.opType) || dims.length !== 4) return undefined;
  const [left, right] = node.inputs as [Value, Value];
  const isFull = (value: Value): boolean => twins.has(value) && shapeOf(value)?.join() === dims.join();
  const side = isFull(left) ? 0 : isFull(right) ? 1 : undefined;
  if (side === undefined) return undefined;
  const other = side === 0 ? right : left;
  const size = shapeOf(other)?.join();
  const channels = dims[1]!;
  if (size !== [channels, 1, 1].join() && size !== [1, channels, 1, 1].join()) return undefined;
  const count = wholeBlocks(channels, block);
  const x = twins.get(side === 0 ? left : right)!;
  const numbers = filledUp(graph, reshape(graph, other, [channels]), [count - channels]);
  const op = formula(graph);
  if (node.is('Mul')) return scaleBlocked(graph, x, count, { factors: numbers });
  if (node.is('Add')) return scaleBlocked(graph, x, count, { terms: numbers });
  if (side === 0) return scaleBlocked(graph, x, count, { terms: op('Neg', numbers) });
  return scaleBlocked(graph, op('Neg', x), count, { terms: numbers });
}

/** Means and sums of a blocked value over positions, or over samples and positions. */
function reduced({ graph, block, shapeOf, twins }: Work, node: Node, dims: Dims): Value | undefined {
  const x = node.inputs[0];
  const twin = x && twins.get(x);
  const from = x && shapeOf(x);
  if (!twin || from?.length !== 4) return undefined;
  const axes = node.is('GlobalAveragePool') ? [2, 3] : reducedAxes(graph, node, from.length);
  const overSamples = axes?.join() === '0,2,3';
  if (!axes || !(overSamples || axes.join() === '2,3')) return undefined;
  const pooled = averageBlocked(graph, twin);
  const averages = overSamples ? reduce(graph, 'ReduceMean', pooled, axes) : pooled;
  const count = axes.reduce((product, axis) => product * from[axis]!, 1);
  const results = node.is('ReduceSum') ? formula(graph)('Mul', averages, count) : averages;
  const axis = overSamples ? 0 : 1;
  const channels = from[1]!;
  const used = channels % block === 0 ? results : slice(graph, results, [axis], [0], [channels], [1]);
  return reshape(graph, used, dims);
}

/** In ascending order; undefined for other operators and for axes that are computed. */
function reducedAxes(graph: Graph, node: Node, rank: number): number[] | undefined {
  if (!node.is('ReduceMean') && !node.is('ReduceSum')) return undefined;
  const constant = graph.constant(node.inputs[1]);
  const axes = node.ints('axes') ?? (constant ? readInts(constant) : undefined);
  return axes?.map((axis) => axisFromStart(axis, rank)).sort((a, b) => a - b);
}

/** The nodes of a batch normalization in training, in order; its gradient has the same statistics. */
function expanded({ graph, shapes, shapeOf }: Work, node: Node): Node[] {
  const [x, scale, bias, oldMean, oldVariance] = node.inputs as [Value, Value, Value, Value, Value];
  const dims = shapeOf(x)!;
  const added: Node[] = [];
  const note = (value: Value, shape: Dims): Value => {
    shapes.set(value.name, shape);
    added.push(value.producer!);
    return value;
  };
  const [channels, axes] = [dims[1]!, [0, 2, 3]];
  const op = formula(graph);
  const each = [1, channels, 1, 1];
  const column = (value: Value): Value => note(reshape(graph, value, [channels, 1, 1]), [channels, 1, 1]);
  const { mean, centered, squares, variance, r } = insertStatistics(graph, x, axes, node.float('epsilon', 1e-5));
  note(mean, each);
  note(centered, dims);
  note(squares, dims);
  note(variance, each);
  shapes.set(r.name, each);
  const slope = note(op('Mul', r, column(scale)), each);
  const y = note(op('Add', note(op('Mul', centered, slope), dims), column(bias)), dims);
  const momentum = node.float('momentum', 0.9);
  const moved = (old: Value, now: Value): Value =>
    op('Add', op('Mul', old, momentum), op('Mul', reshape(graph, now, [channels]), 1 - momentum));
  const results = [y, moved(oldMean, mean), moved(oldVariance, variance)];
  results.forEach((value, i) => {
    const output = node.outputs[i];
    if (output) graph.replaceUses(output, value);
  });
  return added;
}
