/** The form that ships: bit-packed codes decoded by model-local functions while the file is loaded. */
import { TensorProto_DataType as DataType, type FunctionProto } from 'onnx-buf';
import { floatAttribute, intAttribute, intsAttribute } from '../onnx/attributes.js';
import type { Graph, Value } from '../onnx/graph.js';
import { fromMatrix, type WeightLayer } from '../onnx/layers.js';
import { makeTensor } from '../onnx/tensor.js';
import type { Grid } from './grid.js';
import type { QuantizedWeights, Writer } from './placement.js';
import {
  activationFunction,
  biasFunction,
  CODEBOOK_FUNCTIONS,
  codebookFunction,
  DOMAIN,
  FUNCTIONS,
  packCodes,
  UNPACK_FUNCTIONS,
  unpackFunction,
  type UnpackForm,
} from './pack.js';

/** Model-local functions by name, each for a version of the default operator set. */
export type FunctionDefinitions = Readonly<Record<string, (opset: number) => FunctionProto>>;

export const PACK_DEFINITIONS: FunctionDefinitions = {
  [FUNCTIONS.unpackInt8]: (opset) => unpackFunction('int8', opset),
  [FUNCTIONS.unpackFloat]: (opset) => unpackFunction('float', opset),
  [FUNCTIONS.unpackCodes]: (opset) => unpackFunction('codes', opset),
  [FUNCTIONS.codebookInt8]: (opset) => codebookFunction('int8', opset),
  [FUNCTIONS.codebookFloat]: (opset) => codebookFunction('float', opset),
  [FUNCTIONS.codebookCodes]: (opset) => codebookFunction('codes', opset),
  [FUNCTIONS.activation]: activationFunction,
  [FUNCTIONS.bias]: biasFunction,
};

/** How the codes of a layer are stored: a tensor or several, and a call of a function that decodes them. */
export interface WeightStorage {
  readonly insert: typeof insertUnpack;
  readonly definitions: FunctionDefinitions;
}

const BIT_PLANES: WeightStorage = { insert: insertUnpack, definitions: PACK_DEFINITIONS };

export function packedWriter(graph: Graph, storage = BIT_PLANES): Writer {
  const constants = new SharedConstants(graph);
  const used = new Set<string>();
  const scales = new Map<string, Value>();
  const calls = new Map<string, Value>();
  const scaleOf = (layer: WeightLayer, weights: QuantizedWeights, int8: boolean): Value => {
    const key = `${layer.weight.name} ${String(int8)}`;
    let scale = scales.get(key);
    if (!scale) {
      const dims = int8 ? [layer.channels] : layer.dims.map((_, i) => (i === layer.channelAxis ? layer.channels : 1));
      const values = int8 ? int8Scales(weights) : weights.scales;
      scale = graph.addInitializer(
        makeTensor(graph.uniqueName(`${layer.weight.name}_c`), DataType.FLOAT, dims, values),
      );
      scales.set(key, scale);
    }
    return scale;
  };
  return {
    weight(layer, weights, input) {
      const int8 = input !== undefined;
      const form: UnpackForm = int8 ? 'int8' : 'float';
      const key = `${layer.weight.name} ${form}`;
      const known = calls.get(key);
      if (known) return known;
      const scale = scaleOf(layer, weights, int8);
      const value = storage.insert(graph, constants, layer, weights, form, scale);
      used.add(value.producer!.opType);
      calls.set(key, value);
      return value;
    },
    bias(layer, bias, weights, input) {
      used.add(FUNCTIONS.bias);
      const output = graph.uniqueName(`${layer.weight.name}_bq`);
      const scale = scaleOf(layer, weights, true);
      return graph.insertOp(FUNCTIONS.bias, [bias, scale], [floatAttribute('s', input.scale)], output, DOMAIN);
    },
    activation(value, quantizer) {
      used.add(FUNCTIONS.activation);
      const attributes = [floatAttribute('s', quantizer.scale), intAttribute('z', quantizer.zeroPoint)];
      return graph.insertOp(FUNCTIONS.activation, [value], attributes, graph.uniqueName(`${value.name}_q`), DOMAIN);
    },
    floatBias: (layer, bias) =>
      graph.addInitializer(
        makeTensor(graph.uniqueName(`${layer.weight.name}_b`), DataType.FLOAT, [layer.channels], bias),
      ),
    finish() {
      addFunctions(graph, used, storage.definitions);
    },
  };
}

/** Adds the definitions of the functions named in `used`, with the imports they need. */
export function addFunctions(
  graph: Graph,
  used: ReadonlySet<string>,
  definitions: FunctionDefinitions = PACK_DEFINITIONS,
): void {
  if (used.size === 0) return;
  if (graph.irVersion < 8) graph.irVersion = 8;
  graph.requireOpset(1, DOMAIN);
  const opset = graph.opset();
  for (const [name, define] of Object.entries(definitions)) if (used.has(name)) graph.functions.push(define(opset));
}

/** A half-integer grid runs on odd int8 values with half the scale. */
export function int8Scales(weights: QuantizedWeights): Float32Array {
  return weights.grid.offset === 0 ? weights.scales : weights.scales.map((s) => s / 2);
}

/** Packed codes by the codes they were made from: the same weights go into every file that is built and timed. */
const packedByCodes = new WeakMap<Int8Array, Uint8Array>();

function packedCodes(layer: WeightLayer, { codes, grid }: QuantizedWeights): Uint8Array {
  let packed = packedByCodes.get(codes);
  if (!packed) {
    const ordered = fromMatrix(layer, codes);
    packed = packCodes(storedCodes(ordered, grid), grid.bits);
    packedByCodes.set(codes, packed);
  }
  return packed;
}

/** What is stored of codes: how far they are above the lowest one, or their places in the codebook. */
function storedCodes(codes: Int8Array, { low, levels }: Grid): Uint8Array {
  const place = new Map(levels ? Array.from(levels, (level, k) => [level, k] as const) : []);
  return Uint8Array.from(codes, (code) => (levels ? place.get(code)! : code - low));
}

/** Stores the packed codes of a layer and calls the function that decodes them. `scale` is left out for plain codes. */
export function insertUnpack(
  graph: Graph,
  constants: SharedConstants,
  layer: WeightLayer,
  weights: QuantizedWeights,
  form: UnpackForm,
  scale: Value | undefined,
): Value {
  const { grid } = weights;
  const base = layer.weight.name;
  const dims = [grid.bits, Math.ceil(weights.codes.length / 8)];
  const packed = graph.addInitializer(
    makeTensor(graph.uniqueName(`${base}_p`), DataType.UINT8, dims, packedCodes(layer, weights)),
  );
  const unit = form !== 'float' && grid.offset !== 0 ? 2 : 1;
  const inputs = [packed, constants.placeValues(grid.bits, unit)];
  if (grid.levels) {
    const { levels } = grid;
    inputs.push(
      graph.addInitializer(makeTensor(graph.uniqueName(`${base}_l`), DataType.INT8, [levels.length], levels)),
    );
  } else inputs.push(constants.offset(unit * (grid.low + grid.offset)));
  if (scale) inputs.push(scale);
  const attributes = [intsAttribute('s', layer.dims)];
  if (form === 'int8') attributes.push(intAttribute('x', layer.channelAxis));
  const name = (grid.levels ? CODEBOOK_FUNCTIONS : UNPACK_FUNCTIONS)[form];
  return graph.insertOp(name, inputs, attributes, graph.uniqueName(`${base}_w`), DOMAIN);
}

/** Place values and offsets of the codes, one small constant per width and grid, shared by all layers. */
export class SharedConstants {
  private readonly cache = new Map<string, Value>();
  constructor(private readonly graph: Graph) {}

  /** float [1, bits]: what each plane counts, in units of `unit`. */
  placeValues(bits: number, unit: number): Value {
    const values = Array.from({ length: bits }, (_, i) => unit * 2 ** (bits - 1 - i));
    return this.get(`v${String(bits)}_${String(unit)}`, [1, bits], values);
  }

  /** float [1]: value of the code 0. */
  offset(value: number): Value {
    return this.get(`o${String(value)}`, [1], [value]);
  }

  private get(key: string, dims: number[], values: number[]): Value {
    let value = this.cache.get(key);
    if (!value) {
      value = this.graph.addInitializer(
        makeTensor(this.graph.uniqueName(key), DataType.FLOAT, dims, Float32Array.from(values)),
      );
      this.cache.set(key, value);
    }
    return value;
  }
}
