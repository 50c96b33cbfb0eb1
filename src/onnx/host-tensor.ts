/** Tensors that the engine returned, as tensors of a model. */
import type { TensorProto } from 'onnx-buf';
import type { HostTensor, HostType } from '../runtime/engine.js';
import { DataType } from './dtypes.js';
import { makeTensor } from './tensor.js';

const HOST_DATA_TYPES: Record<HostType, DataType> = {
  float32: DataType.FLOAT,
  float64: DataType.DOUBLE,
  float16: DataType.FLOAT16,
  int8: DataType.INT8,
  uint8: DataType.UINT8,
  int16: DataType.INT16,
  uint16: DataType.UINT16,
  int32: DataType.INT32,
  uint32: DataType.UINT32,
  int64: DataType.INT64,
  uint64: DataType.UINT64,
  bool: DataType.BOOL,
};

const exchangeable = new Set<number>(Object.values(HOST_DATA_TYPES));

/** True when tensors of this TensorProto.DataType can reach JavaScript. */
export function isExchangeable(type: number): boolean {
  return exchangeable.has(type);
}

/** The tensor under a name; its elements are shared, not copied. */
export function tensorFromHost(name: string, tensor: HostTensor): TensorProto {
  return makeTensor(name, HOST_DATA_TYPES[tensor.type], tensor.dims, tensor.data);
}
