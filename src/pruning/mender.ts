/** What rules mend a node with, once indices are gone: the sizes that are left, and constants to state them. */
import { FlowCompressError } from '../errors.js';
import { intAttribute, intsAttribute } from '../onnx/attributes.js';
import type { Graph, Node, Value } from '../onnx/graph.js';
import { DataType } from '../onnx/dtypes.js';
import { makeTensor, readInts } from '../onnx/tensor.js';

/** Indices that stay along one axis, in order; undefined where all of them do. */
export type Kept = Int32Array | undefined;

export class Mender {
  private readonly constants = new Map<string, Value>();

  constructor(
    private readonly graph: Graph,
    private readonly keptOf: (value: Value, axis: number) => Kept,
    private readonly sizesOf: (value: Value) => readonly number[],
  ) {}

  /** Dims before the cut. */
  before(value: Value | undefined): readonly number[] {
    return value ? this.sizesOf(value) : [];
  }

  /** Dims after the cut. */
  after(value: Value | undefined): number[] {
    return this.before(value).map((size, axis) => this.kept(value, axis)?.length ?? size);
  }

  kept(value: Value | undefined, axis: number): Kept {
    return value && this.keptOf(value, axis);
  }

  /** How many indices below `end` stay. */
  keptBelow(value: Value | undefined, axis: number, end: number): number {
    const kept = this.kept(value, axis);
    if (!kept) return end;
    let count = 0;
    for (const index of kept) if (index < end) count++;
    return count;
  }

  ints(value: Value | undefined): number[] | undefined {
    const tensor = this.graph.constant(value);
    return tensor && readInts(tensor);
  }

  /** Integers of an operand or, in older opsets, of an attribute. */
  given(node: Node, index: number, attribute: string): number[] | undefined {
    return this.ints(node.inputs[index]) ?? node.ints(attribute);
  }

  /** Gives the node a constant operand of its own, or the attribute where it has that. Equal constants are one. */
  give(node: Node, index: number, attribute: string, values: readonly number[]): void {
    const old = this.graph.constant(node.inputs[index]);
    if (node.ints(attribute) || (!old && this.graph.opset() < 13)) {
      return this.graph.setAttribute(node, intsAttribute(attribute, values));
    }
    // Indices may have any rank; shapes, sizes and bounds have one axis.
    if (old && old.dims.length !== 1) {
      throw new FlowCompressError('internal', 'An operand that states sizes has several axes.', { node: node.label });
    }
    this.graph.setInput(node, index, this.constant(values, old?.dataType ?? DataType.INT64));
  }

  /** New numbers of an index operand, in its own type; those of one axis may be fewer. */
  giveIndices(node: Node, numbers: readonly number[]): void {
    const old = this.graph.constant(node.inputs[1]);
    const dims = old?.dims.length === 1 ? [numbers.length] : (old?.dims ?? []);
    const name = this.graph.uniqueName(`${node.inputs[1]?.name ?? 'indices'}_cut`);
    const tensor = makeTensor(name, old?.dataType ?? DataType.INT64, dims, numbers);
    this.graph.setInput(node, 1, this.graph.addInitializer(tensor));
  }

  setInt(node: Node, attribute: string, value: number): void {
    this.graph.setAttribute(node, intAttribute(attribute, value));
  }

  removeAttribute(node: Node, attribute: string): void {
    node.attributes.delete(attribute);
  }

  private constant(values: readonly number[], type: DataType): Value {
    const key = `${String(type)}: ${values.join()}`;
    let value = this.constants.get(key);
    if (!value) {
      const name = this.graph.uniqueName('cut_sizes');
      value = this.graph.addInitializer(makeTensor(name, type, [values.length], values));
      this.constants.set(key, value);
    }
    return value;
  }
}
