/** Whether int8 kernels of this machine saturate on 8-bit weights. */
import { TensorProto_DataType as DataType, type ModelProto } from 'onnx-buf';
import { emptyModel, Graph, type Value } from '../onnx/graph.js';
import { makeTensor } from '../onnx/tensor.js';
import { toBytes } from '../onnx/to-bytes.js';
import { tensorInfo } from '../onnx/value-info.js';
import type { Engine } from './engine.js';

const INPUTS = 64;
const OUTPUTS = 16;

/**
 * x86 processors without VNNI add pairs of uint8 x int8 products in 16 bits, which holds two times 255 x 64 but not
 * 255 x 127: weights then need 7 bits. Multiplies the largest values through the engine's quantized MatMul and compares
 * with the exact sum.
 */
export async function saturates(engine: Engine): Promise<boolean> {
  const session = await engine.createSession(toBytes(extremeMatMul()));
  try {
    const data = new Float32Array(INPUTS).fill(255);
    const results = await session.run({ x: { type: 'float32', dims: [1, INPUTS], data } });
    const exact = INPUTS * 255 * 127;
    return Object.values(results).some(({ data: sums }) =>
      [...sums].some((sum) => Math.abs(Number(sum) - exact) > exact * 1e-6),
    );
  } finally {
    await session.release();
  }
}

/** x float [1, 64] in steps of 1, times int8 weights of 127. */
function extremeMatMul(): ModelProto {
  const graph = new Graph(emptyModel(13));
  const scale = graph.addInitializer(makeTensor('scale', DataType.FLOAT, [], Float32Array.of(1)));
  const zero = graph.addInitializer(makeTensor('zero', DataType.UINT8, [], Uint8Array.of(0)));
  const weights = new Int8Array(INPUTS * OUTPUTS).fill(127);
  const codes = graph.addInitializer(makeTensor('codes', DataType.INT8, [INPUTS, OUTPUTS], weights));
  const x: Value = graph.addInitializer(makeTensor('x', DataType.FLOAT, [], new Float32Array(1)));
  graph.feed(x, tensorInfo('x', DataType.FLOAT, [1, INPUTS]));
  const rounded = graph.insertOp('DequantizeLinear', [graph.insertOp('QuantizeLinear', [x, scale, zero]), scale, zero]);
  const y = graph.insertOp('MatMul', [rounded, graph.insertOp('DequantizeLinear', [codes, scale])], [], 'y');
  y.info = tensorInfo('y', DataType.FLOAT, [1, OUTPUTS]);
  graph.outputs.push(y);
  return graph.toModel();
}
