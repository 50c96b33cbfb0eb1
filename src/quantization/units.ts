/** Weight layers that share one initializer are quantized once: a unit is that tensor with every layer that reads it. */
import type { WeightLayer } from '../onnx/layers.js';

export interface WeightUnit {
  /** The first layer that reads the tensor; its matrix view is the unit's. */
  readonly layer: WeightLayer;
  /** All layers that read it, the first included. */
  readonly readers: readonly WeightLayer[];
}

/**
 * Groups layers by weight tensor. Layers that see a shared tensor as another matrix (a tied embedding and class head)
 * cannot share codes per channel: the tensor is then left to float and the layers are absent.
 */
export function weightUnits(layers: readonly WeightLayer[]): WeightUnit[] {
  const byWeight = new Map<string, WeightLayer[]>();
  for (const layer of layers) {
    const readers = byWeight.get(layer.weight.name);
    if (readers) readers.push(layer);
    else byWeight.set(layer.weight.name, [layer]);
  }
  return [...byWeight.values()]
    .filter((readers) => readers.every((r) => sameView(r, readers[0]!)) && isQuantizable(readers[0]!))
    .map((readers) => ({ layer: readers[0]!, readers }));
}

function sameView(a: WeightLayer, b: WeightLayer): boolean {
  return a.channelAxis === b.channelAxis && a.rows === b.rows && a.cols === b.cols && a.groups === b.groups;
}

/** A grouped ConvTranspose repeats its channel axis per group, which one scale per channel cannot express. */
export function isQuantizable(layer: WeightLayer): boolean {
  return !(layer.op === 'ConvTranspose' && layer.groups > 1);
}
