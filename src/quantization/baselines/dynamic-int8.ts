/**
 * Dynamic INT8: 8-bit weights; MatMul and Gemm quantize their input at run time with the range of the very tensor. No
 * calibration data. Other layers are stored in 8 bits and execute in float, where dynamic integer kernels are slow.
 */
import { TensorProto_DataType as DataType, type ModelProto } from 'onnx-buf';
import { intAttribute } from '../../onnx/attributes.js';
import { Graph, type Value } from '../../onnx/graph.js';
import { findLayers, type WeightLayer } from '../../onnx/layers.js';
import { makeTensor } from '../../onnx/tensor.js';
import { deploy } from '../deploy.js';
import type { QuantizedWeights } from '../placement.js';
import type { QuantizationMethod } from '../method.js';
import { addFunctions, insertUnpack, int8Scales, SharedConstants } from '../packed-writer.js';
import { FUNCTIONS } from '../pack.js';
import { roundAll } from './round-all.js';

export const dynamicInt8: QuantizationMethod = {
  name: 'dynamic-int8',
  summary: '8-bit weights, activations of MatMul and Gemm quantized at run time',
  activations: 'dynamic',
  fixedBits: 8,
  prepare: (context) =>
    Promise.resolve({
      quantize: () =>
        Promise.resolve({ ...roundAll(context, Math.min(8, context.settings.maxBits), false), activations: new Map() }),
    }),
};

/** Layers that `deployDynamic` executes on integers. */
export function isDynamic(layer: WeightLayer): boolean {
  return (
    layer.op === 'MatMul' ||
    (layer.op === 'Gemm' && layer.node.float('alpha', 1) === 1 && layer.node.float('beta', 1) === 1)
  );
}

/** The model that ships: DynamicQuantizeLinear, MatMulInteger, Cast, Mul [, Add], which the engine fuses. */
export function deployDynamic(model: ModelProto, weights: ReadonlyMap<string, QuantizedWeights>): ModelProto {
  const graph = new Graph(model);
  const constants = new SharedConstants(graph);
  const rest = new Map(weights);
  let any = false;
  for (const layer of findLayers(graph)) {
    const own = weights.get(layer.name);
    if (!own || !isDynamic(layer)) continue;
    rest.delete(layer.name);
    executeDynamic(graph, constants, layer, own);
    any = true;
  }
  if (any) addFunctions(graph, new Set([FUNCTIONS.unpackCodes]));
  graph.removeDead();
  return deploy(graph.toModel(), { weights: rest, activations: new Map(), int8: new Set() });
}

function executeDynamic(graph: Graph, constants: SharedConstants, layer: WeightLayer, weights: QuantizedWeights): void {
  const { node, input } = layer;
  let codes = insertUnpack(graph, constants, layer, weights, 'codes', undefined);
  if (layer.channelAxis === 0) codes = graph.insertOp('Transpose', [codes]);
  const quantize = graph.insert({
    opType: 'DynamicQuantizeLinear',
    inputs: [input],
    outputs: ['q', 's', 'z'].map((part) => graph.uniqueName(`${layer.output.name}_${part}`)),
  });
  const [q, s, z] = quantize.outputs as [Value, Value, Value];
  const sums = graph.insertOp('MatMulInteger', [q, codes, z]);
  const asFloat = graph.insertOp('Cast', [sums], [intAttribute('to', DataType.FLOAT)]);
  const scaleName = graph.uniqueName(`${layer.weight.name}_c`);
  const scale = graph.addInitializer(makeTensor(scaleName, DataType.FLOAT, [layer.channels], int8Scales(weights)));
  let result = graph.insertOp('Mul', [asFloat, graph.insertOp('Mul', [s, scale])]);
  const bias = layer.op === 'Gemm' ? node.inputs[2] : undefined;
  if (bias) result = graph.insertOp('Add', [result, bias]);
  graph.replaceUses(layer.output, result);
  graph.remove(node);
}
