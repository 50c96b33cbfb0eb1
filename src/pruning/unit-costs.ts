/** What one unit of a group costs: the parameters and multiply-accumulates that go with it. */
import type { Graph, Node } from '../onnx/graph.js';
import { macCounter, type Shapes } from '../onnx/macs.js';
import type { Dependencies } from './groups.js';

export interface UnitCost {
  readonly params: number;
  /** Of one sample; undefined where they cannot be counted. */
  readonly macs?: number;
}

/** Dims of a value that become less: by axis, the indices of the unit. */
interface Loss {
  readonly name: string;
  readonly dims: readonly number[];
  readonly lost: number[];
}

/**
 * The cost of the first unit of every group, by place in the list, with all other units there.
 * @param shapes as the groups were found with, of `samples` rows
 */
export function unitCosts(graph: Graph, shapes: Shapes, dependencies: Dependencies, samples = 1): UnitCost[] {
  const losses = lossesOf(dependencies);
  const dims = new Map(shapes);
  for (const value of graph.values())
    if (value.initializer) dims.set(value.name, { dims: value.initializer.dims.map(Number) });
  const counter = macCounter(graph, dims, samples);
  const count = (nodes: Iterable<Node>): number | undefined => {
    let sum = 0;
    for (const node of nodes) {
      const macs = counter.ofNode(node);
      if (macs === undefined) return undefined;
      sum += macs;
    }
    return sum;
  };
  return losses.map((own) => {
    const nodes = new Set<Node>();
    let params = 0;
    for (const { name, dims: sizes, lost } of own) {
      const value = graph.value(name);
      if (value?.initializer) {
        const product = (list: readonly number[]): number => list.reduce((a, b) => a * b, 1);
        params += product(sizes) - product(sizes.map((size, axis) => size - lost[axis]));
      }
      if (value?.producer) nodes.add(value.producer);
      for (const use of value?.uses ?? []) nodes.add(use.node);
    }
    const before = count(nodes);
    for (const { name, dims: sizes, lost } of own)
      dims.set(name, { dims: sizes.map((size, axis) => size - lost[axis]) });
    const after = count(nodes);
    for (const { name, dims: sizes } of own) dims.set(name, { dims: sizes });
    return { params, ...(before !== undefined && after !== undefined && { macs: before - after }) };
  });
}

function lossesOf({ groups, units }: Dependencies): Loss[][] {
  const losses = groups.map((): Loss[] => []);
  const groupOf = new Map(groups.map((group) => [group.units[0], group.index]));
  for (const [name, axes] of units.axes) {
    const own = new Map<number, Loss>();
    for (const [axis, { start, size }] of axes.entries()) {
      for (let i = 0; i < size && size > 1; i++) {
        const group = groupOf.get(units.classOf[start + i]);
        if (group === undefined) continue;
        let loss = own.get(group);
        if (!loss) own.set(group, (loss = { name, dims: axes.map((each) => each.size), lost: axes.map(() => 0) }));
        loss.lost[axis]++;
      }
    }
    for (const [group, loss] of own) losses[group].push(loss);
  }
  return losses;
}
