/**
 * The simulation that the written file is checked against: the same plan with weights dequantized here, biases rounded
 * here and plain QuantizeLinear / DequantizeLinear pairs, to be run without graph optimisations, hence in float.
 */
import { TensorProto_DataType as DataType, type ModelProto } from 'onnx-buf';
import type { Graph, Value } from '../onnx/graph.js';
import { fromMatrix } from '../onnx/layers.js';
import { makeTensor, readFloats } from '../onnx/tensor.js';
import type { ActivationQuantizer } from './activation-range.js';
import { place, type Deployment, type Writer } from './placement.js';
import { int8Scales } from './packed-writer.js';
import { roundHalfEven } from './grid.js';
import { dequantize } from './round-layer.js';

export function simulate(model: ModelProto, plan: Deployment): ModelProto {
  return place(model, plan, plainWriter);
}

function plainWriter(graph: Graph): Writer {
  return {
    weight(layer, weights) {
      const values = fromMatrix(layer, dequantize(layer, weights));
      return graph.addInitializer(
        makeTensor(graph.uniqueName(`${layer.weight.name}_w`), DataType.FLOAT, layer.dims, values),
      );
    },
    bias(layer, bias, weights, input) {
      const scales = int8Scales(weights);
      const rounded = readFloats(graph.constant(bias)!).map((b, c) => {
        const step = Math.fround(scales[c]! * input.scale);
        return step > 0 ? roundHalfEven(Math.fround(b / step)) * step : 0;
      });
      return graph.addInitializer(
        makeTensor(graph.uniqueName(`${layer.weight.name}_bq`), DataType.FLOAT, [layer.channels], rounded),
      );
    },
    activation: (value, quantizer) => roundedActivation(graph, value, quantizer),
    floatBias: (layer, bias) =>
      graph.addInitializer(
        makeTensor(graph.uniqueName(`${layer.weight.name}_b`), DataType.FLOAT, [layer.channels], bias),
      ),
    finish: () => undefined,
  };
}

/** The value rounded to uint8 and back. */
export function roundedActivation(graph: Graph, value: Value, { scale, zeroPoint }: ActivationQuantizer): Value {
  const name = graph.uniqueName(`${value.name}_scale`);
  const step = graph.addInitializer(makeTensor(name, DataType.FLOAT, [], Float32Array.of(scale)));
  const point = graph.addInitializer(
    makeTensor(graph.uniqueName(`${value.name}_zero`), DataType.UINT8, [], Uint8Array.of(zeroPoint)),
  );
  const codes = graph.insertOp('QuantizeLinear', [value, step, point]);
  return graph.insertOp('DequantizeLinear', [codes, step, point]);
}
