/** Gradient graphs in ONNX Runtime: they must be valid there and give what the reference gives, at any batch size. */
import type { ModelProto } from 'onnx-buf';
import { rewrite } from '../onnx/graph.js';
import { exposeValue } from '../runtime/trace.js';
import { checkGradients, type GradientCheck } from './check-gradients.js';
import { checkReference } from './check-reference.js';
import { checkVaryingSizes } from './gradient-model.js';
import type { NdArray } from './reference/array.js';

type Given = Readonly<Record<string, NdArray>>;

export interface EngineCheck extends GradientCheck {
  /** More values of the graph inputs: sizes in which they differ from the first ones are left open to the rules. */
  readonly others?: readonly Given[];
  /** As {@link checkReference} takes it, for the gradients in float32. */
  readonly engineTolerance?: number;
}

/** @throws Error naming the value and element that differ, or the engine's own error */
export async function checkInEngine(model: ModelProto, given: Given, check: EngineCheck = {}): Promise<void> {
  const samples = [given, ...(check.others ?? [])];
  const wanted = check.wanted ?? Object.keys(given);
  const gradients = checkVaryingSizes(bent(model, check.outputs), samples, { wanted });
  for (const sample of samples) await checkReference(gradients, sample, check.engineTolerance ?? 1e-3);
}

/** The forward pass in ONNX Runtime, the gradients against central differences, and their graph in ONNX Runtime. */
export async function checkRule(model: ModelProto, given: Given, check: EngineCheck = {}): Promise<void> {
  await checkReference(model, given);
  checkGradients(model, given, check);
  await checkInEngine(model, given, check);
}

/** The sine of the outputs: the sum of squares of a normalized output is constant, that of its sine is not. */
function bent(model: ModelProto, outputs: readonly string[] | undefined): ModelProto {
  return rewrite(model, (graph) => {
    const all = graph.outputs.splice(0);
    for (const output of all)
      if (outputs?.includes(output.name) ?? true) exposeValue(graph, graph.insertOp('Sin', [output]));
  });
}
