/** How the quantized model executes: which nodes may run in int8, and which of the possible files is the fastest here. */
import type { ModelProto } from 'onnx-buf';
import { Graph, rewrite } from '../onnx/graph.js';
import { compactNames } from '../onnx/passes/compact.js';
import { modelByteLength } from '../onnx/write.js';
import type { RunControl } from '../progress.js';
import { tieQuantizers } from '../quantization/activation-range.js';
import { deployDynamic } from '../quantization/baselines/dynamic-int8.js';
import { deploy, type Deployment } from '../quantization/deploy.js';
import { int8Candidates, type Int8Candidate } from '../quantization/execution/candidates.js';
import { quantizedValues, quantizerGroups, resultsOf } from '../quantization/execution/quantized-values.js';
import type { QuantizationMethod, QuantizationOutcome } from '../quantization/method.js';
import { simulate } from '../quantization/simulate.js';
import type { QuantizeOptions } from './options.js';
import type { PreparedStudy } from './quantization-study.js';
import { chooseFastest } from './choose-execution.js';
import type { Workspace } from './workspace.js';

/** A decision that can be built for any outcome of the same model. */
export interface ExecutionChoice {
  readonly name: string;
  /** Nodes in int8, by the name of their first output. */
  readonly int8: ReadonlySet<string>;
  readonly warnings: readonly string[];
  build(outcome: QuantizationOutcome): ModelProto;
  /** Undefined where the model computes its ranges at run time. */
  simulate(outcome: QuantizationOutcome): ModelProto | undefined;
}

export interface Execution {
  /** Values whose ranges must be known. */
  readonly quantizable: ReadonlySet<string>;
  /** Bytes of the largest file that `choose` could pick. */
  largestFile(outcome: QuantizationOutcome): number;
  choose(outcome: QuantizationOutcome, control: RunControl): Promise<ExecutionChoice>;
}

export function executionFor(
  workspace: Workspace,
  study: PreparedStudy,
  method: QuantizationMethod,
  settings: Pick<QuantizeOptions, 'execution' | 'target'>,
): Execution {
  if (method.activations === 'dynamic') return dynamicExecution(study);
  const graph = new Graph(study.model);
  const candidates =
    settings.execution === 'float' || method.activations === 'none'
      ? new Map<string, Int8Candidate>()
      : usable(graph, study, settings.target);
  const all = new Set(candidates.keys());
  const choiceOf = (name: string, int8: ReadonlySet<string>, warnings: readonly string[] = []): ExecutionChoice => ({
    name,
    int8,
    warnings,
    build: (outcome) => compacted(deploy(study.model, deployment(study, outcome, int8))),
    simulate: (outcome) => simulate(study.model, deployment(study, outcome, int8)),
  });
  const float = choiceOf('float', new Set());
  return {
    quantizable: new Set(quantizedValues(graph, all).map((q) => q.value.name)),
    largestFile: (outcome) =>
      Math.max(
        ...(settings.execution === 'int8' ? [] : [modelByteLength(float.build(outcome))]),
        ...(all.size > 0 ? [modelByteLength(choiceOf('int8', all).build(outcome))] : []),
        0,
      ),
    async choose(outcome, control) {
      if (all.size === 0) return float;
      const full = choiceOf('int8', all);
      if (settings.execution === 'int8') return full;
      return chooseFastest(workspace, study, candidates, outcome, (name, int8) => choiceOf(name, int8), control);
    },
  };
}

/** Candidates whose result may be rounded: what the caller reads stays exact float. */
function usable(graph: Graph, study: PreparedStudy, target: QuantizeOptions['target']): Map<string, Int8Candidate> {
  const candidates = int8Candidates(graph, study.shapes, target);
  for (const [name, { node }] of candidates) {
    const floatResult = node.is('Gemm') || node.is('MatMul');
    if (!floatResult && resultsOf(graph, node).some((value) => graph.isGraphOutput(value))) candidates.delete(name);
  }
  return candidates;
}

function deployment(study: PreparedStudy, outcome: QuantizationOutcome, int8: ReadonlySet<string>): Deployment {
  const groups = quantizerGroups(new Graph(study.model), int8);
  return { weights: outcome.weights, activations: tieQuantizers(outcome.activations, groups), int8 };
}

function compacted(model: ModelProto): ModelProto {
  return rewrite(model, (graph) => {
    compactNames(graph);
  });
}

function dynamicExecution(study: PreparedStudy): Execution {
  const build = (outcome: QuantizationOutcome): ModelProto => compacted(deployDynamic(study.model, outcome.weights));
  const choice: ExecutionChoice = {
    name: 'dynamic',
    int8: new Set(study.layers.filter((l) => l.op === 'MatMul' || l.op === 'Gemm').map((l) => l.output.name)),
    warnings: [],
    build,
    simulate: () => undefined,
  };
  return {
    quantizable: new Set(),
    largestFile: (outcome) => modelByteLength(build(outcome)),
    choose: () => Promise.resolve(choice),
  };
}
