/** The units that weight layers make and read, channel by channel. */
import type { Graph } from '../onnx/graph.js';
import { findLayers, type WeightLayer } from '../onnx/layers.js';
import type { Dependencies } from './groups.js';

export interface LayerUnits {
  readonly layer: WeightLayer;
  /** Class by output channel; -1 where there is only one channel. */
  readonly made: Int32Array;
  /** Class by input channel; absent where channels are convolved alone or in groups. */
  readonly read?: Int32Array;
  /** Columns of the weight matrix per input channel: the kernel's elements. */
  readonly taps: number;
}

/** Every layer with constant float weights that was followed, in topological order. */
export function layerUnits(graph: Graph, { units: { axes, classOf } }: Dependencies): LayerUnits[] {
  return findLayers(graph).flatMap((layer) => {
    const own = axes.get(layer.weight.name);
    if (!own || layer.op === 'Gather') return [];
    const classes = (axis: number): Int32Array => {
      const { start, size } = own[axis]!;
      // Axes of length 1 have no members.
      return size > 1 ? classOf.slice(start, start + size) : new Int32Array(size).fill(-1);
    };
    const inputAxis = layer.op === 'Conv' ? 1 : layer.op === 'ConvTranspose' ? 0 : 1 - layer.channelAxis;
    const made = classes(layer.channelAxis);
    if (layer.groups > 1) return [{ layer, made, taps: 1 }];
    const read = classes(inputAxis);
    return [{ layer, made, read, taps: layer.cols / read.length }];
  });
}

/** Output channels of every layer that are left, by layer name. */
export function keptChannels(layers: readonly LayerUnits[], removed: Uint8Array): Map<string, number[]> {
  return new Map(
    layers.map(({ layer, made }) => [
      layer.name,
      [...made.keys()].filter((channel) => made[channel]! < 0 || removed[made[channel]!] === 0),
    ]),
  );
}
