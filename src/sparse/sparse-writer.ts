/** Files whose pruned weights are sparse-packed: quantized ones of a plan, or float weights as they stand in a model. */
import { TensorProto_DataType as DataType, type ModelProto } from 'onnx-buf';
import { intAttribute, intsAttribute } from '../onnx/attributes.js';
import { rewrite, type Graph, type Value } from '../onnx/graph.js';
import { findLayers, fromMatrix, type WeightLayer } from '../onnx/layers.js';
import { makeTensor, readFloats } from '../onnx/tensor.js';
import { DOMAIN, packedBytes } from '../quantization/pack.js';
import {
  addFunctions,
  insertUnpack,
  PACK_DEFINITIONS,
  packedWriter,
  type FunctionDefinitions,
  type WeightStorage,
} from '../quantization/packed-writer.js';
import { place, type Deployment, type QuantizedWeights } from '../quantization/placement.js';
import {
  countNonZero,
  packSparse,
  sparseBytes,
  sparseFunction,
  SPARSE_FUNCTIONS,
  type SparseForm,
  type SparseValues,
} from './sparse-pack.js';

const SPARSE_DEFINITIONS: FunctionDefinitions = {
  [SPARSE_FUNCTIONS.float]: (opset) => sparseFunction('float', opset),
  [SPARSE_FUNCTIONS.int8]: (opset) => sparseFunction('int8', opset),
  [SPARSE_FUNCTIONS.values]: (opset) => sparseFunction('values', opset),
};

const SPARSE_WHERE_SMALLER: WeightStorage = {
  insert(graph, constants, layer, weights, form, scale) {
    if (form === 'codes' || !isSmallerSparse(weights))
      return insertUnpack(graph, constants, layer, weights, form, scale);
    return insertSparse(graph, layer, fromMatrix(layer, weights.codes), form, scale);
  },
  definitions: { ...PACK_DEFINITIONS, ...SPARSE_DEFINITIONS },
};

/**
 * Puts a plan into a model: weights whose codes are mostly 0 are sparse-packed, the others are bit planes.
 * @param model a prepared float model (constants inlined, batch norms folded), opset 13 or newer
 * @throws FlowCompressError `internal` when an int8 node has an activation without a quantizer.
 */
export function deploySparse(model: ModelProto, plan: Deployment): ModelProto {
  return place(model, plan, (graph) => packedWriter(graph, SPARSE_WHERE_SMALLER));
}

/** Whether the mask and the codes that are not 0 take fewer bytes than the bit planes of all codes. */
export function isSmallerSparse({ codes, grid }: Pick<QuantizedWeights, 'codes' | 'grid'>): boolean {
  return grid.offset === 0 && sparseBytes(codes.length, countNonZero(codes), 1) < packedBytes(codes.length, grid.bits);
}

/**
 * The model with every float weight that is smaller that way sparse-packed, its numbers as they are (-0 becomes 0).
 * @param model of opset 13 or newer
 */
export function storeSparse(model: ModelProto): ModelProto {
  return rewrite(model, (graph) => {
    const stored = new Map<Value, Value>();
    for (const layer of findLayers(graph)) {
      const known = stored.get(layer.weight);
      const values = readFloats(graph.constant(layer.weight)!);
      if (!known && sparseBytes(values.length, countNonZero(values), 4) >= 4 * values.length) continue;
      const value = known ?? insertSparse(graph, layer, values, 'values');
      stored.set(layer.weight, value);
      graph.setInput(layer.node, layer.weightIndex, value);
    }
    if (stored.size > 0) addFunctions(graph, new Set([SPARSE_FUNCTIONS.values]), SPARSE_DEFINITIONS);
    graph.removeDead();
  });
}

/** @param all elements in the order of the weight tensor */
function insertSparse(graph: Graph, layer: WeightLayer, all: SparseValues, form: SparseForm, scale?: Value): Value {
  const base = layer.weight.name;
  const { mask, values } = packSparse(all);
  const type = values instanceof Int8Array ? DataType.INT8 : DataType.FLOAT;
  const inputs = [
    graph.addInitializer(makeTensor(graph.uniqueName(`${base}_m`), DataType.UINT8, [mask.length], mask)),
    graph.addInitializer(makeTensor(graph.uniqueName(`${base}_v`), type, [values.length], values)),
    ...(scale ? [scale] : []),
  ];
  const attributes = [intsAttribute('s', layer.dims)];
  if (form === 'int8') attributes.push(intAttribute('x', layer.channelAxis));
  return graph.insertOp(SPARSE_FUNCTIONS[form], inputs, attributes, graph.uniqueName(`${base}_w`), DOMAIN);
}
