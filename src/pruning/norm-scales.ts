/** Scales of batch normalizations as scores of the channels that they scale (Liu et al. 2017). */
import type { Graph } from '../onnx/graph.js';
import { readFloats } from '../onnx/tensor.js';
import type { Dependencies } from './groups.js';
import { layerUnits } from './layer-units.js';

/**
 * By layer name and output channel, the mean |gamma| of the normalizations that scale this unit, wherever they stand: behind the layer,
 * behind a sum, or in front of what reads it. NaN where there is none. Scales that are all alike (where none was learned) tell nothing.
 * @param graph with its normalizations
 */
export function normScales(graph: Graph, dependencies: Dependencies): Map<string, Float64Array> {
  const { axes, classOf } = dependencies.units;
  const sums = new Map<number, { sum: number; count: number }>();
  for (const node of graph.nodes) {
    const scale = node.is('BatchNormalization') ? node.inputs[1] : undefined;
    const tensor = graph.constant(scale);
    const axis = scale && axes.get(scale.name)?.[0];
    if (!tensor || !axis || axis.size <= 1) continue;
    const values = readFloats(tensor).map(Math.abs);
    if (values.every((value) => value === values[0])) continue;
    values.forEach((value, c) => {
      const unit = classOf[axis.start + c]!;
      const { sum, count } = sums.get(unit) ?? { sum: 0, count: 0 };
      sums.set(unit, { sum: sum + value, count: count + 1 });
    });
  }
  const meanOf = (unit: number): number => {
    const found = sums.get(unit);
    return found ? found.sum / found.count : NaN;
  };
  return new Map(
    layerUnits(graph, dependencies).map(({ layer, made }) => [layer.name, Float64Array.from(made, meanOf)]),
  );
}

/** The scales of the channels that are left. @param kept channels of the original by layer name */
export function keptScales(
  scales: ReadonlyMap<string, Float64Array>,
  kept: ReadonlyMap<string, readonly number[]>,
): Map<string, Float64Array> {
  return new Map(
    [...scales].map(([name, values]) => {
      const channels = kept.get(name);
      return [name, channels ? Float64Array.from(channels, (c) => values[c]!) : values];
    }),
  );
}
