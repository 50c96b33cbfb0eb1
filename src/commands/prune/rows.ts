/** The rows of a prune report: groups, layers and branches, before and after. */
import { Graph, type Node } from '../../onnx/graph.js';
import { findLayers, type WeightLayer } from '../../onnx/layers.js';
import { macCounter } from '../../onnx/macs.js';
import { removableBranches } from '../../pruning/branches.js';
import type { Dependencies } from '../../pruning/groups.js';
import { layerUnits } from '../../pruning/layer-units.js';
import { projectionName } from '../../pruning/projections.js';
import type { PruningState } from '../../pruning/step.js';
import type { PrunedGroup, PrunedLayer, PruneReport, RemovedBranch } from '../../report/report.js';
import type { TracedValues } from '../../runtime/trace.js';

/** @param rows samples in the shapes of both states */
export function prunedRows(
  original: PruningState,
  pruned: PruningState,
  dependencies: Dependencies,
  divergences: ReadonlyMap<string, number>,
  rows: number,
): Pick<PruneReport, 'groups' | 'layers' | 'removed'> {
  const before = new Graph(original.model);
  const after = layersIn(new Graph(pruned.model), pruned.shapes, rows);
  const own = layersIn(before, original.shapes, rows);
  const layers = [...own].map(([name, layer]): PrunedLayer => {
    const left = after.get(name);
    const { macs } = layer;
    return {
      ...{ name, op: layer.op },
      channels: { before: layer.channels, after: left?.channels ?? 0 },
      params: { before: layer.params, after: left?.params ?? 0 },
      ...(macs !== undefined && { macs: { before: macs, after: left?.macs ?? 0 } }),
    };
  });
  return {
    groups: groupsOf(before, pruned, dependencies, new Set(after.keys())),
    layers,
    removed: [
      ...branchesOf(original, pruned, before, divergences, rows),
      ...projectionsOf(pruned, own, after, divergences),
    ],
  };
}

interface LayerCost extends Pick<WeightLayer, 'op' | 'channels' | 'params'> {
  readonly macs: number | undefined;
}

function layersIn(graph: Graph, shapes: TracedValues, rows: number): Map<string, LayerCost> {
  const counter = macCounter(graph, shapes, rows);
  return new Map(
    findLayers(graph).map(({ name, op, channels, params, node, biasSlot }) => {
      const macs = counter.ofNode(node);
      const bias = biasSlot?.node.inputs[biasSlot.index]?.initializer ? channels : 0;
      return [name, { op, channels, params: params + bias, macs: macs === undefined ? undefined : Math.round(macs) }];
    }),
  );
}

/** How many units of every group are left, told by the layers that make them. */
function groupsOf(
  graph: Graph,
  { kept }: PruningState,
  dependencies: Dependencies,
  left: ReadonlySet<string>,
): PrunedGroup[] {
  const made = new Map(layerUnits(graph, dependencies).map((units) => [units.layer.name, units.made]));
  return dependencies.groups.flatMap(({ kind, layers, units }) => {
    const makers = layers.filter((name) => made.has(name));
    if (makers.length === 0) return [];
    const staying = new Set<number>();
    for (const name of makers) {
      if (!left.has(name)) continue;
      const classes = made.get(name)!;
      for (const channel of kept.get(name) ?? []) staying.add(classes[channel]!);
    }
    return [
      { layers: [...layers], kind, before: units.length, after: units.filter((unit) => staying.has(unit)).length },
    ];
  });
}

function branchesOf(
  { shapes }: PruningState,
  { gone }: PruningState,
  graph: Graph,
  divergences: ReadonlyMap<string, number>,
  rows: number,
): RemovedBranch[] {
  const names = new Set(gone);
  const counter = macCounter(graph, shapes, rows);
  const macsOf = (nodes: ReadonlySet<Node>): number | undefined =>
    [...nodes].reduce<number | undefined>((sum, node) => {
      const macs = counter.ofNode(node);
      return macs === undefined || sum === undefined ? undefined : sum + macs;
    }, 0);
  const params = new Map(layersIn(graph, shapes, rows));
  return removableBranches(graph, shapes)
    .filter(({ name }) => names.has(name))
    .map(({ name, layers, nodes }) => {
      const macs = macsOf(nodes);
      const divergence = divergences.get(name);
      return {
        ...{ name, layers: [...layers] },
        params: layers.reduce((sum, layer) => sum + params.get(layer)!.params, 0),
        ...(macs !== undefined && { macs: Math.round(macs) }),
        ...(divergence !== undefined && { divergence }),
      };
    });
}

/** Layers that a projection stands for, and what they cost more than it does. */
function projectionsOf(
  { projected }: PruningState,
  before: ReadonlyMap<string, LayerCost>,
  after: ReadonlyMap<string, LayerCost>,
  divergences: ReadonlyMap<string, number>,
): RemovedBranch[] {
  return [...projected].flatMap(([layer, inner]) => {
    const left = after.get(layer)!;
    const layers = [...inner, layer];
    const costs = layers.flatMap((name) => before.get(name) ?? []);
    const name = projectionName(layers);
    const divergence = divergences.get(name);
    const macs = costs.map((cost) => cost.macs);
    const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);
    return [
      {
        ...{ name, layers, params: sum(costs.map(({ params }) => params)) - left.params },
        ...(left.macs !== undefined && macs.every((value) => value !== undefined) && { macs: sum(macs) - left.macs }),
        ...(divergence !== undefined && { divergence }),
      },
    ];
  });
}
