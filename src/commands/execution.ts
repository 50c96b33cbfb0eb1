/** How the quantized model executes: which nodes may run in int8, and which of the possible files is the fastest here. */
import type { ModelProto } from 'onnx-buf';
import { nodeOpTimeCache } from '../node/op-time-cache.js';
import { nodeProfiler } from '../node/profiler.js';
import { Graph, rewrite } from '../onnx/graph.js';
import { compactNames } from '../onnx/passes/compact.js';
import { modelByteLength } from '../onnx/write.js';
import type { RunControl } from '../progress.js';
import { tieQuantizers } from '../quantization/activation-range.js';
import { deployDynamic } from '../quantization/baselines/dynamic-int8.js';
import { deploy } from '../quantization/deploy.js';
import type { Deployment } from '../quantization/placement.js';
import { int8Candidates, type Int8Candidate } from '../quantization/execution/candidates.js';
import { judgeAlternatives } from '../quantization/execution/accuracy.js';
import { executionAlternatives } from '../quantization/execution/alternatives.js';
import { chooseExecution } from '../quantization/execution/choose.js';
import { quantizedValues, quantizerGroups } from '../quantization/execution/quantized-values.js';
import type { QuantizationMethod, QuantizationOutcome } from '../quantization/method.js';
import { simulate } from '../quantization/simulate.js';
import type { QuantizeOptions } from './options.js';
import type { PreparedStudy } from './quantization-study.js';
import { SAMPLES_AT_HAND, type Workspace } from './workspace.js';

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
  /** What is left when an int8 file does not compute what was planned. */
  readonly float: ExecutionChoice | undefined;
}

export function executionFor(
  workspace: Workspace,
  study: PreparedStudy,
  method: QuantizationMethod,
  settings: Pick<QuantizeOptions, 'execution' | 'target' | 'threads'>,
): Execution {
  if (method.activations === 'dynamic') return dynamicExecution(study);
  const graph = new Graph(study.model);
  const candidates =
    settings.execution === 'float' || method.activations === 'none'
      ? new Map<string, Int8Candidate>()
      : int8Candidates(graph, study.shapes, settings.target);
  const all = new Set(candidates.keys());
  const choiceOf = (name: string, int8: ReadonlySet<string>, warnings: readonly string[] = []): ExecutionChoice => ({
    name,
    int8,
    warnings,
    build: (outcome) => compacted(deploy(study.model, deployment(study, outcome, int8)), study),
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
      const build = builtOnce((int8) => choiceOf('candidate', int8).build(outcome));
      const { engine, timedBatches, fixedBatch, feedsFor } = workspace;
      const batches = timedBatches.map((size) => ({
        size,
        feeds: feedsFor(size),
      }));
      const alternatives =
        settings.execution === 'int8'
          ? [{ name: 'int8', int8: all }]
          : await executionAlternatives({
              graph,
              shapes: study.shapes,
              target: settings.target,
              candidates,
              build,
              batches,
              ...(settings.target === 'cpu' && { profiler: nodeProfiler(settings.threads), cache: nodeOpTimeCache() }),
            });
      const probe = feedsFor(fixedBatch ?? JUDGED_SAMPLES);
      const judged =
        settings.execution === 'int8'
          ? alternatives
          : await judgeAlternatives(engine, study.model, build, alternatives, probe, control.signal);
      const kept = judged.filter((alternative) => !('acceptable' in alternative) || alternative.acceptable);
      const feeds = batches.map((batch) => batch.feeds);
      const found = await chooseExecution(engine, build, kept, feeds, { ...control, execution: settings.execution });
      const refused = judged.length - kept.length;
      const warnings =
        refused > 0 && found.int8.size < all.size
          ? [
              `8-bit activations everywhere move the outputs too far; ${found.int8.size === 0 ? 'the model executes in float' : `${String(found.int8.size)} of ${String(all.size)} nodes execute in int8`}.`,
            ]
          : [];
      return choiceOf(found.name, found.int8, warnings);
    },
    float,
  };
}

/** Remembers the model of every set of int8 nodes: each is profiled, judged and timed. */
function builtOnce(build: (int8: ReadonlySet<string>) => ModelProto): (int8: ReadonlySet<string>) => ModelProto {
  const built = new Map<string, ModelProto>();
  return (int8) => {
    const key = JSON.stringify([...int8].sort());
    let model = built.get(key);
    if (!model) {
      model = build(int8);
      built.set(key, model);
    }
    return model;
  };
}

/** Samples on which executions are compared with the original: those that the workspace has at hand. */
const JUDGED_SAMPLES = SAMPLES_AT_HAND;

function deployment(study: PreparedStudy, outcome: QuantizationOutcome, int8: ReadonlySet<string>): Deployment {
  const groups = quantizerGroups(new Graph(study.model), int8);
  return { weights: outcome.weights, activations: tieQuantizers(outcome.activations, groups), int8 };
}

/** The smallest form of a model; only the weight layers keep their node names, by which reports call them. */
function compacted(model: ModelProto, { layers }: PreparedStudy): ModelProto {
  const named = new Map(layers.map((layer) => [layer.output.name, layer.name]));
  return rewrite(model, (graph) => {
    const kept = graph.nodes.flatMap((node) => {
      const name = named.get(node.outputs[0]?.name ?? '');
      return name === undefined ? [] : [[node, name] as const];
    });
    compactNames(graph);
    for (const [node, name] of kept) node.name = name;
  });
}

function dynamicExecution(study: PreparedStudy): Execution {
  const build = (outcome: QuantizationOutcome): ModelProto =>
    compacted(deployDynamic(study.model, outcome.weights), study);
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
    float: undefined,
  };
}
