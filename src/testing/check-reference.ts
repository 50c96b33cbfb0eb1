/** The reference evaluator held against ONNX Runtime. */
import type { ModelProto } from 'onnx-buf';
import { DataType } from '../onnx/dtypes.js';
import { toBytes } from '../onnx/to-bytes.js';
import type { Feeds, HostTensor } from '../runtime/engine.js';
import { engine } from './graph-writing.js';
import type { NdArray } from './reference/array.js';
import { evaluate } from './reference/evaluate.js';

/**
 * Runs a model both ways and compares all outputs.
 * @param given values of the graph inputs; integers and booleans where the model declares them
 * @throws Error naming the output and element that differ by more than `tolerance`, relative to the larger of 1 and the value
 */
export async function checkReference(
  model: ModelProto,
  given: Readonly<Record<string, NdArray>>,
  tolerance = 1e-4,
): Promise<void> {
  const expected = evaluate(model, given);
  const feeds: Feeds = {};
  for (const input of model.graph!.input) {
    const type = input.type?.value.case === 'tensorType' ? input.type.value.value.elemType : DataType.FLOAT;
    feeds[input.name] = hostTensor(given[input.name]!, type);
  }
  const session = await engine.createSession(toBytes(model), { optimization: 'disabled' });
  try {
    for (const [name, { dims, data }] of Object.entries(await session.run(feeds))) {
      const wanted = expected.get(name)!;
      if (dims.join() !== wanted.dims.join())
        throw new Error(`${name} is [${wanted.dims.join()}] here and [${dims.join()}] in ONNX Runtime`);
      wanted.data.forEach((value, i) => {
        const actual = Number(data[i]);
        if (!(Math.abs(actual - value) <= tolerance * Math.max(1, Math.abs(value))) && !Object.is(actual, value))
          throw new Error(`${name}[${String(i)}] is ${String(value)} here and ${String(actual)} in ONNX Runtime`);
      });
    }
  } finally {
    await session.release();
  }
}

function hostTensor({ dims, data }: NdArray, type: number): HostTensor {
  if (type === Number(DataType.INT64))
    return { type: 'int64', dims, data: BigInt64Array.from(data, (v) => BigInt(Math.round(v))) };
  if (type === Number(DataType.INT32)) return { type: 'int32', dims, data: Int32Array.from(data) };
  if (type === Number(DataType.BOOL)) return { type: 'bool', dims, data: Uint8Array.from(data) };
  return { type: 'float32', dims, data: Float32Array.from(data) };
}
