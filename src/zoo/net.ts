/**
 * A network in the making: a graph whose values know their dims, and whose parameters are drawn from one seeded stream in
 * the order of the layers. Layers (layers.ts) are functions on it; names are the paths that people know from checkpoints.
 */
import { TensorProto_DataType as DataType, type AttributeProto, type ModelProto } from 'onnx-buf';
import { randomStream, type RandomStream } from '../data/random.js';
import { FlowCompressError } from '../errors.js';
import { emptyModel, Graph, type Value } from '../onnx/graph.js';
import { withFields } from '../onnx/message.js';
import { makeTensor } from '../onnx/tensor.js';
import { tensorInfo } from '../onnx/value-info.js';
import type { Init } from './init.js';

/** LayerNormalization came with opset 17. */
const OPSET = 17;

export interface NetOptions {
  readonly seed: number;
  /** Leave the weights without values: enough for counting, too little for running. */
  readonly hollow?: boolean;
}

export class Net {
  readonly graph = new Graph(emptyModel(OPSET));
  private readonly random: RandomStream;
  private readonly hollow: boolean;
  private readonly dimsOf = new Map<Value, readonly number[]>();
  private readonly scalars = new Map<number, Value>();
  private readonly energies = new Map<Value, number>();
  private learned = 0;

  constructor({ seed, hollow = false }: NetOptions) {
    this.random = randomStream(seed);
    this.hollow = hollow;
  }

  /** Elements of all parameters so far; running statistics are no parameters. */
  get parameters(): number {
    return this.learned;
  }

  /** Dims of every value for a batch of one, by name. */
  get shapes(): Map<string, { dims: readonly number[] }> {
    return new Map([...this.dimsOf].map(([value, dims]) => [value.name, { dims }]));
  }

  /** Dims for a batch of one; the first one is the batch where the value depends on the input. */
  dims(value: Value): readonly number[] {
    const dims = this.dimsOf.get(value);
    if (!dims) throw new FlowCompressError('internal', `'${value.name}' is not a value of this network.`);
    return dims;
  }

  /**
   * Mean square of the elements of a value before any training, for standard normal input: an estimate that takes elements
   * as independent. Layers say what they make of it; where none does, it is that of the first input.
   */
  energy(value: Value): number {
    return this.energies.get(value) ?? 1;
  }

  setEnergy(value: Value, energy: number): Value {
    this.energies.set(value, energy);
    return value;
  }

  /** The input `input` with the given dims behind the batch. */
  input(dims: readonly number[], type: 'float32' | 'int64' = 'float32'): Value {
    const code = type === 'float32' ? DataType.FLOAT : DataType.INT64;
    const value = this.graph.addInput(tensorInfo('input', code, ['N', ...dims]));
    this.dimsOf.set(value, [1, ...dims]);
    return value;
  }

  /** Gives a value a public name and makes it an output. */
  output(value: Value, name: string): void {
    this.graph.rename(value, name);
    const [, ...rest] = this.dims(value);
    value.info = tensorInfo(name, DataType.FLOAT, ['N', ...rest]);
    this.graph.outputs.push(value);
  }

  /** A node called `name` with one output `name.out`. @param dims of the output for a batch of one */
  op(
    name: string,
    opType: string,
    inputs: (Value | undefined)[],
    dims: readonly number[],
    attributes: AttributeProto[] = [],
  ): Value {
    const node = this.graph.insert({ opType, name, inputs, outputs: [`${name}.out`], attributes });
    const output = this.know(node.outputs[0]!, dims);
    return inputs[0] ? this.setEnergy(output, this.energy(inputs[0])) : output;
  }

  /** A node with several outputs `name.out0`, `name.out1`, ... */
  opWithOutputs(
    name: string,
    opType: string,
    inputs: Value[],
    dims: readonly (readonly number[])[],
    attributes: AttributeProto[] = [],
  ): Value[] {
    const outputs = dims.map((_, i) => `${name}.out${String(i)}`);
    const node = this.graph.insert({ opType, name, inputs, outputs, attributes });
    return dims.map((own, i) => this.setEnergy(this.know(node.outputs[i]!, own), this.energy(inputs[0]!)));
  }

  /** A learned float32 tensor. Without `fans` it is a bias or scale, whose fans are its length. */
  parameter(name: string, dims: readonly number[], init: Init, fans?: { fanIn: number; fanOut: number }): Value {
    const value = this.floats(name, dims, init, fans);
    this.learned += product(dims);
    return value;
  }

  /** A float32 tensor that is kept but not learned: running statistics. */
  statistic(name: string, dims: readonly number[], init: Init): Value {
    return this.floats(name, dims, init);
  }

  /** A constant int64 tensor. */
  integers(name: string, values: readonly number[], dims: readonly number[] = [values.length]): Value {
    const data = BigInt64Array.from(values, BigInt);
    return this.know(this.graph.addInitializer(makeTensor(name, DataType.INT64, dims, data)), dims);
  }

  /** A float32 number of a formula; equal ones are one tensor. */
  scalar(number: number): Value {
    const known = this.scalars.get(number);
    if (known) return known;
    const name = `constant.${String(Number(number.toPrecision(6)))}`;
    const tensor = makeTensor(this.graph.uniqueName(name), DataType.FLOAT, [], Float32Array.of(number));
    const value = this.know(this.graph.addInitializer(tensor), []);
    this.scalars.set(number, value);
    return value;
  }

  toModel(): ModelProto {
    return this.graph.toModel();
  }

  private floats(name: string, dims: readonly number[], init: Init, fans?: { fanIn: number; fanOut: number }): Value {
    const count = product(dims);
    const { fanIn, fanOut } = fans ?? { fanIn: count, fanOut: count };
    if (this.hollow) {
      const empty = makeTensor(name, DataType.FLOAT, [0], new Float32Array());
      return this.know(this.graph.addInitializer(withFields(empty, { dims: dims.map(BigInt) })), dims);
    }
    const data = init({ count, fanIn, fanOut }, this.random);
    const value = this.know(this.graph.addInitializer(makeTensor(name, DataType.FLOAT, dims, data)), dims);
    return this.setEnergy(value, data.reduce((sum, x) => sum + x * x, 0) / count);
  }

  private know(value: Value, dims: readonly number[]): Value {
    if (dims.some((dim) => !Number.isInteger(dim) || dim < 1)) {
      throw new FlowCompressError('bad-input', `'${value.name}' would have the shape [${dims.join(', ')}].`, {
        node: value.name,
        hint: 'Give a larger input size or width.',
      });
    }
    this.dimsOf.set(value, dims);
    return value;
  }
}

export function product(dims: readonly number[]): number {
  return dims.reduce((a, b) => a * b, 1);
}
