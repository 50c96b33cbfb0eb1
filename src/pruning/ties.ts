/** What rules tie: the axes of all values, as runs of members of one partition. */
import { FlowCompressError } from '../errors.js';
import type { Graph, Node, Value } from '../onnx/graph.js';
import { readInts } from '../onnx/tensor.js';
import type { Shapes } from '../onnx/macs.js';
import { FREE, type Partition } from './partition.js';

/** An axis of a value. Its indices are the members `start` to `start + size - 1`; axes of length 1 or 0 have no members. */
export interface Axis {
  readonly start: number;
  readonly size: number;
}

/** Why indices must stay. */
export interface Cause {
  /** Label of the node at fault; absent for the interface of the model. */
  readonly node?: string;
  /** Operator of that node. */
  readonly op?: string;
  readonly reason: string;
}

export interface FollowOptions {
  /**
   * Let indices go along which LayerNormalization, RMSNormalization and means work: what they compute then is over the
   * indices that are left, not what it was with zeros.
   */
  readonly cutNormalized?: boolean;
}

/** One of several ways to tie a node, and the axes by which one sees whether that left anything to remove. */
interface Choice {
  readonly key: string;
  readonly alternative: number;
  readonly seen: readonly Axis[];
}

const UNFOLLOWED = 'its rule does not follow this axis';

/** Alternatives that left nothing to remove, by place. */
export type DeadEnds = Map<string, Set<number>>;

export class Ties {
  readonly axes = new Map<Value, readonly Axis[]>();
  readonly causes = new Map<number, Cause>();
  readonly choices: Choice[] = [];
  /** Members that are heads of attention. */
  readonly heads: Axis[] = [];
  private readonly unfollowed: { readonly value: Value; readonly node: Node | undefined }[] = [];
  private readonly causeNumbers = new Map<string, number>();
  /** By member: everything at this index is 0 once the stored numbers of its class are 0. */
  private zero = new Uint8Array(1024);
  private readonly touched = new Set<Axis>();
  private node: Node | undefined;
  private nodeNumber = 0;

  constructor(
    readonly graph: Graph,
    readonly partition: Partition,
    private readonly shapes: Shapes,
    readonly options: FollowOptions,
    private readonly maskable: (value: Value) => boolean,
    private readonly deadEnds: DeadEnds,
  ) {}

  /** Starts with a node: what is mentioned from now on is of this node. */
  begin(node: Node): void {
    this.node = node;
    this.nodeNumber++;
    this.touched.clear();
  }

  /** Fixes what the rule of the node did not mention. */
  end(values: Iterable<Value | undefined>): void {
    for (const value of values) {
      if (!value) continue;
      const axes = this.axes.get(value);
      if (!axes) this.unfollowed.push({ value, node: this.node });
      for (const axis of axes ?? []) if (!this.touched.has(axis)) this.fix(axis, UNFOLLOWED);
    }
  }

  /** Fixes operands that one rule did not follow and a later one did, such as a stored shape that is also data. */
  fixUnfollowed(): void {
    for (const { value, node } of this.unfollowed) {
      this.node = node;
      for (const axis of this.axes.get(value) ?? []) this.fix(axis, UNFOLLOWED);
    }
  }

  /** Fixes values that callers rely on. */
  fixInterface(values: readonly Value[], reason: string): void {
    this.node = undefined;
    this.fixAll(values, reason);
  }

  /** Fixes classes that are all of an axis: nothing would be left of it. */
  fixWhole(): void {
    for (const [value, axes] of this.axes) {
      this.node = value.producer ?? [...value.uses][0]?.node;
      for (const axis of axes) {
        if (axis.size <= 1) continue;
        const first = this.partition.find(axis.start);
        let i = 1;
        while (i < axis.size && this.partition.find(axis.start + i) === first) i++;
        if (i === axis.size) this.fixIndex(axis, 0, 'all of it would have to go at once');
      }
    }
  }

  axesKnown(value: Value): boolean {
    return this.dims(value) !== undefined;
  }

  dims(value: Value | undefined): readonly number[] | undefined {
    if (!value) return undefined;
    if (value.initializer) return value.initializer.dims.map(Number);
    return this.shapes.get(value.name)?.dims;
  }

  /** Axes of a value; undefined where its shape is not known. */
  axesOf(value: Value | undefined): readonly Axis[] | undefined {
    if (!value) return undefined;
    const known = this.axes.get(value);
    if (known) return known;
    const dims = this.dims(value);
    if (!dims) return undefined;
    const zero = value.isInitializer && this.maskable(value) ? 1 : 0;
    const axes = dims.map((size) => this.newAxis(size, zero));
    this.axes.set(value, axes);
    return axes;
  }

  /** Axes of an operand or result that is there and whose shape is known, as the driver has made sure. */
  mustHave(value: Value | undefined): readonly Axis[] {
    const axes = this.axesOf(value);
    if (!axes) {
      throw new FlowCompressError('internal', `The shape of '${value?.name ?? 'an absent operand'}' is not known.`, {
        node: this.node?.label,
      });
    }
    return axes;
  }

  /** Values of a constant integer operand; undefined where it is absent or computed. */
  ints(value: Value | undefined): number[] | undefined {
    const tensor = this.graph.constant(value);
    return tensor && readInts(tensor);
  }

  /** Index i of one axis stays or goes with index j of the other. A neighbour of length 1 cannot lose its only index. */
  tie(a: Axis, i: number, b: Axis, j: number): void {
    this.touch(a, b);
    if (a.size > 1 && b.size > 1) this.partition.join(a.start + i, b.start + j);
    else if (a.size > 1) this.fixIndex(a, i, 'nothing would be left of its result');
    else if (b.size > 1) this.fixIndex(b, j, 'nothing would be left of its operand');
  }

  /** Ties equal indices of two axes of one length. */
  tieAll(a: Axis, b: Axis): void {
    if (a.size !== b.size) return this.fixBoth(a, b, 'has lengths that do not fit');
    this.touch(a, b);
    if (a.size > 1) for (let i = 0; i < a.size; i++) this.partition.join(a.start + i, b.start + i);
  }

  /** Ties equal indices; zeros of `from` are zeros of `to`. */
  pass(from: Axis, to: Axis): void {
    this.tieAll(from, to);
    if (from.size === to.size) for (let i = 0; i < from.size; i++) this.setZero(to, i, this.isZero(from, i));
  }

  /** The axis need not be tied here: its indices may go without anything that this node does being different. */
  free(axis: Axis): void {
    this.touch(axis);
  }

  fix(axis: Axis, reason: string): void {
    this.touch(axis);
    for (let i = 0; i < axis.size; i++) this.fixIndex(axis, i, reason);
  }

  fixBoth(a: Axis, b: Axis, reason: string): void {
    this.fix(a, reason);
    this.fix(b, reason);
  }

  fixIndex(axis: Axis, i: number, reason: string): void {
    this.touch(axis);
    if (axis.size <= 1) return;
    const { node } = this;
    this.partition.fix(axis.start + i, this.causeNumber({ node: node?.label, op: node?.opType, reason }));
  }

  fixAll(values: Iterable<Value | undefined>, reason: string): void {
    for (const value of values) for (const axis of this.axesOf(value) ?? []) this.fix(axis, reason);
  }

  /**
   * Both axes are summed over together. What is removed must have been 0 in one of them, else the sum is another one and the
   * indices are fixed.
   */
  sumOver(a: Axis, b: Axis): void {
    this.tieAll(a, b);
    for (let i = 0; i < a.size; i++) {
      if (!this.isZero(a, i) && !this.isZero(b, i)) this.fixIndex(a, i, 'sums over it, and it would not be 0 there');
    }
  }

  /** The axis is summed over. */
  sum(axis: Axis): void {
    this.touch(axis);
    for (let i = 0; i < axis.size; i++) {
      if (!this.isZero(axis, i)) this.fixIndex(axis, i, 'sums over it, and it would not be 0 there');
    }
  }

  isZero(axis: Axis, i: number): boolean {
    return axis.size > 1 && this.zero[axis.start + i] === 1;
  }

  setZero(axis: Axis, i: number, zero: boolean): void {
    if (axis.size > 1) this.zero[axis.start + i] = zero ? 1 : 0;
  }

  /** True while nothing is known that keeps all indices of the axis. */
  mayShrink(axis: Axis): boolean {
    for (let i = 0; i < axis.size && axis.size > 1; i++) {
      if (this.partition.causeOf(axis.start + i) === FREE) return true;
    }
    return false;
  }

  /**
   * The alternative to take at a place of the node where several are right: the first that is possible as far as one knows.
   * @param seen axes of each alternative: it was in vain if in the end none of them can shrink
   */
  choose(place: string, seen: readonly (readonly Axis[])[]): number {
    const key = `${String(this.nodeNumber)} ${place}`;
    const dead = this.deadEnds.get(key);
    const open = seen.map((_, alternative) => alternative).filter((alternative) => !dead?.has(alternative));
    const hopeful = open.find((alternative) => seen[alternative].some((axis) => this.mayShrink(axis)));
    const chosen = hopeful ?? open[0] ?? 0;
    // Where everything is fixed already no alternative can help.
    if (seen.length > 1 && hopeful !== undefined) this.choices.push({ key, alternative: chosen, seen: seen[chosen] });
    return chosen;
  }

  private newAxis(size: number, zero: 0 | 1): Axis {
    if (size <= 1) return { start: -1, size };
    const start = this.partition.add(size);
    if (this.partition.size > this.zero.length) {
      const larger = new Uint8Array(Math.max(this.partition.size, this.zero.length * 2));
      larger.set(this.zero);
      this.zero = larger;
    }
    if (zero === 1) this.zero.fill(1, start, start + size);
    return { start, size };
  }

  private touch(axis: Axis, other?: Axis): void {
    this.touched.add(axis);
    if (other) this.touched.add(other);
  }

  private causeNumber(cause: Cause): number {
    const key = JSON.stringify([cause.node, cause.op, cause.reason]);
    let number = this.causeNumbers.get(key);
    if (number === undefined) {
      number = 1 + this.causes.size;
      this.causeNumbers.set(key, number);
      this.causes.set(number, cause);
    }
    return number;
  }
}
