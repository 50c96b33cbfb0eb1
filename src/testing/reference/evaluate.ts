/**
 * A second opinion on what a model computes: plain loops in float64, straight from the definition of every operator. Slow and
 * for tests only; it is itself tested against ONNX Runtime.
 */
import type { ModelProto } from 'onnx-buf';
import { FlowCompressError } from '../../errors.js';
import { Graph } from '../../onnx/graph.js';
import { readTensor } from '../../onnx/tensor.js';
import { array, type NdArray } from './array.js';
import { REFERENCE_OPERATORS } from './registry.js';

/**
 * @param given values of graph inputs, or of any other value, which is then not computed
 * @returns every value of the graph by name
 */
export function evaluate(model: ModelProto, given: Readonly<Record<string, NdArray>>): Map<string, NdArray> {
  const graph = new Graph(model);
  const values = new Map<string, NdArray>(Object.entries(given));
  for (const value of graph.values()) {
    if (values.has(value.name) || !value.initializer) continue;
    values.set(
      value.name,
      array(
        value.initializer.dims.map(Number),
        Array.from<number | bigint, number>(readTensor(value.initializer), Number),
      ),
    );
  }
  for (const node of graph.nodes) {
    if (node.outputs.every((output) => !output || values.has(output.name))) continue;
    const key = node.domain === '' ? node.opType : `${node.domain}:${node.opType}`;
    const operator = REFERENCE_OPERATORS[key];
    if (!operator) throw new FlowCompressError('internal', `The reference knows no ${key}.`, { node: node.label });
    const inputs = node.inputs.map((input) => {
      if (!input) return undefined;
      const value = values.get(input.name);
      if (!value) throw new FlowCompressError('internal', `'${input.name}' has no value.`, { node: node.label });
      return value;
    });
    const outputs = operator(inputs, node, graph.opset(node.domain));
    node.outputs.forEach((output, i) => {
      if (output && outputs[i]) values.set(output.name, outputs[i]);
    });
  }
  return values;
}
