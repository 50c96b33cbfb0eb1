/** Gradient graphs as they are for a batch of varying size, to be run at any of them. */
import type { ModelProto } from 'onnx-buf';
import { differentiate } from '../autodiff/differentiate.js';
import type { Shape } from '../autodiff/rule.js';
import { Graph, type Value } from '../onnx/graph.js';
import { reduce } from '../onnx/ops.js';
import { exposeValue } from '../runtime/trace.js';
import type { NdArray } from './reference/array.js';
import { evaluate } from './reference/evaluate.js';

export interface GradientModelOptions {
  /** Graph inputs and initializers; all graph inputs given by default. */
  readonly wanted?: readonly string[];
  /** Outputs that enter the loss; all of them by default. */
  readonly outputs?: readonly string[];
  /** Adds the loss to the graph; the sum of the squared outputs by default. */
  readonly loss?: (graph: Graph, outputs: readonly Value[]) => Value;
}

export interface GradientModel {
  readonly model: ModelProto;
  /** The model with its loss, without gradients, and the name of the loss. */
  readonly lossModel: ModelProto;
  readonly loss: string;
  /** By wanted value, the name of its gradient. */
  readonly names: ReadonlyMap<string, string>;
}

/**
 * The model with the gradients of a loss as further outputs.
 * @param samples values of the graph inputs; a size that is not the same in all of them is left open to the rules
 */
export function gradientModel(
  model: ModelProto,
  samples: readonly Readonly<Record<string, NdArray>>[],
  options: GradientModelOptions = {},
): GradientModel {
  const graph = new Graph(model);
  const outputs = graph.outputs.filter((output) => options.outputs?.includes(output.name) ?? true);
  const loss = (options.loss ?? sumOfSquares)(graph, outputs);
  const lossModel = graph.toModel();
  const runs = samples.map((given) => evaluate(lossModel, given));
  const shapes = new Map<string, Shape>(
    [...runs[0]!].map(([name, { dims }]) => [
      name,
      dims.map((size, axis) => (runs.every((run) => run.get(name)!.dims[axis] === size) ? size : undefined)),
    ]),
  );
  const wanted = options.wanted ?? Object.keys(samples[0]!);
  const gradients = differentiate(
    graph,
    loss,
    wanted.map((name) => graph.mustGet(name)),
    { shapes },
  );
  for (const gradient of gradients.values()) exposeValue(graph, gradient);
  const names = new Map([...gradients].map(([value, { name }]) => [value.name, name]));
  return { model: graph.toModel(), lossModel, loss: loss.name, names };
}

function sumOfSquares(graph: Graph, outputs: readonly Value[]): Value {
  const squares = outputs.map((y) => reduce(graph, 'ReduceSum', graph.insertOp('Mul', [y, y])));
  return squares.length === 1 ? squares[0]! : graph.insertOp('Sum', squares);
}

/**
 * Builds the gradients once for all samples and compares them, sample by sample, with those built for its very shapes.
 * @returns the gradient model, to be run elsewhere
 * @throws Error naming the value that differs
 */
export function checkVaryingSizes(
  model: ModelProto,
  samples: readonly Readonly<Record<string, NdArray>>[],
  options: GradientModelOptions = {},
): ModelProto {
  const open = gradientModel(model, samples, options);
  for (const given of samples) {
    const fixed = gradientModel(model, [given], options);
    const [found, expected] = [evaluate(open.model, given), evaluate(fixed.model, given)];
    for (const [name, gradient] of fixed.names) {
      const right = expected.get(gradient)!;
      const left = found.get(open.names.get(name) ?? '');
      const same =
        left?.dims.join() === right.dims.join() &&
        left.data.every((value, i) => Math.abs(value - right.data[i]!) <= 1e-9 * Math.max(1, Math.abs(value)));
      if (!same) throw new Error(`the gradient of ${name} differs where the batch varies`);
    }
  }
  return open.model;
}
