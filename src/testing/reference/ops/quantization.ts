/** QuantizeLinear and DequantizeLinear, per tensor, per axis and per block. */
import { dataTypeInfo, DataType } from '../../../onnx/dtypes.js';
import type { Node } from '../../../onnx/graph.js';
import { at, axisOf, build, type NdArray } from '../array.js';
import type { ReferenceOperator } from '../operator.js';
import { roundHalfToEven } from './elementwise.js';

/** Reads the scale or zero point that belongs to an element of x. */
function parameterReader(x: NdArray, parameter: NdArray | undefined, node: Node): (index: readonly number[]) => number {
  if (!parameter) return () => 0;
  if (parameter.data.length === 1) return () => parameter.data[0]!;
  const axis = axisOf(node.int('axis', 1), x.dims.length);
  const block = node.int('block_size', 0);
  if (block === 0) return (index) => parameter.data[index[axis]!]!;
  return (index) => at(parameter, index.with(axis, Math.floor(index[axis]! / block)));
}

/** The integer type that a zero point or the attribute output_dtype gives; uint8 without both. */
function quantizedType(node: Node): DataType {
  const zeroPoint = node.inputs[2];
  const info = zeroPoint?.info?.type?.value;
  if (zeroPoint?.initializer) return zeroPoint.initializer.dataType;
  if (info?.case === 'tensorType') return info.value.elemType;
  return node.int('output_dtype', 0) || DataType.UINT8;
}

const quantizeLinear: ReferenceOperator = ([x, scale, zeroPoint], node) => {
  const [low, high] = dataTypeInfo(quantizedType(node)).range!.map(Number) as [number, number];
  const [scaleAt, zeroAt] = [parameterReader(x!, scale, node), parameterReader(x!, zeroPoint, node)];
  return [
    build(x!.dims, (index) => {
      const q = roundHalfToEven(at(x!, index) / scaleAt(index)) + zeroAt(index);
      return Math.min(high, Math.max(low, q));
    }),
  ];
};

const dequantizeLinear: ReferenceOperator = ([q, scale, zeroPoint], node) => {
  const [scaleAt, zeroAt] = [parameterReader(q!, scale, node), parameterReader(q!, zeroPoint, node)];
  return [build(q!.dims, (index) => (at(q!, index) - zeroAt(index)) * scaleAt(index))];
};

export const quantization: Readonly<Record<string, ReferenceOperator>> = {
  QuantizeLinear: quantizeLinear,
  DequantizeLinear: dequantizeLinear,
};
