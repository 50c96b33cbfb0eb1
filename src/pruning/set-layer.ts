/** Gives a layer other weights and another bias. */
import { DataType } from '../onnx/dtypes.js';
import type { Graph } from '../onnx/graph.js';
import { fromMatrix, type WeightLayer } from '../onnx/layers.js';
import { makeTensor } from '../onnx/tensor.js';
import type { LayerWeights } from './solve-layer.js';

/** @param layer of that graph, with a place for a bias */
export function setLayer(graph: Graph, layer: WeightLayer, { weights, bias }: LayerWeights): void {
  const { weight, biasSlot, dims } = layer;
  graph.setInitializer(weight, makeTensor(weight.name, DataType.FLOAT, dims, fromMatrix(layer, weights)));
  const { node, index } = biasSlot!;
  const old = node.inputs[index];
  const biasDims = old?.initializer ? old.initializer.dims.map(Number) : [bias.length];
  // The bias may be one of several layers'.
  if (old?.initializer && old.uses.size === 1)
    graph.setInitializer(old, makeTensor(old.name, DataType.FLOAT, biasDims, bias));
  else {
    const name = graph.uniqueName(`${layer.name}.bias`);
    graph.setInput(node, index, graph.addInitializer(makeTensor(name, DataType.FLOAT, biasDims, bias)));
  }
}
