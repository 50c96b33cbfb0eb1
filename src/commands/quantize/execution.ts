/** How the quantized model executes: which nodes may run in int8, and which of the possible files is the fastest here. */
import { createHash } from 'node:crypto';
import type { ModelProto } from 'onnx-buf';
import { machineKey, nodeProfiler } from '../../node/profiler.js';
import { Graph, rewrite } from '../../onnx/graph.js';
import { compactNames } from '../../onnx/passes/compact.js';
import { encodeModel, modelByteLength } from '../../onnx/write.js';
import type { RunControl } from '../../progress.js';
import { tieQuantizers } from '../../quantization/activation-range.js';
import { deployDynamic } from '../../quantization/baselines/dynamic-int8.js';
import { deploy } from '../../quantization/deploy.js';
import { judgeAlternatives } from '../../quantization/execution/accuracy.js';
import { executionAlternatives } from '../../quantization/execution/alternatives.js';
import { int8Candidates, type Int8Candidate } from '../../quantization/execution/candidates.js';
import { chooseExecution } from '../../quantization/execution/choose.js';
import { quantizedValues, quantizerGroups } from '../../quantization/execution/quantized-values.js';
import { recallExecution, rememberExecution, type RememberedExecution } from '../../quantization/execution/remember.js';
import { executionKey, executionSessions } from '../../quantization/execution/sessions.js';
import type { QuantizationMethod, QuantizationOutcome } from '../../quantization/method.js';
import type { Deployment } from '../../quantization/placement.js';
import type { MachineCache } from '../../runtime/machine-cache.js';
import { cacheFor, type Caches } from '../measured-machine.js';
import { runOnce } from '../../runtime/run-once.js';
import type { QuantizeOptions } from './options.js';
import type { PreparedStudy } from './study.js';
import { SAMPLES_AT_HAND, type Workspace } from '../workspace.js';

/** A decision that can be built for any outcome of the same model. */
export interface ExecutionChoice {
  readonly name: string;
  /** Nodes in int8, by the name of their first output. */
  readonly int8: ReadonlySet<string>;
  readonly warnings: readonly string[];
  build(outcome: QuantizationOutcome): ModelProto;
  /** Where everything goes; undefined where the model computes its ranges at run time. */
  plan(outcome: QuantizationOutcome): Deployment | undefined;
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

type ExecutionSettings = Pick<QuantizeOptions, 'execution' | 'target' | 'threads' | 'remeasure'>;

export function executionFor(
  workspace: Workspace,
  study: PreparedStudy,
  method: QuantizationMethod,
  settings: ExecutionSettings,
  caches: Caches = {},
): Execution {
  const cache = cacheFor(settings, caches);
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
    plan: (outcome) => deployment(study, outcome, int8),
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
      if (settings.execution === 'int8') return choiceOf('int8', all);
      const build = builtOnce((int8) => choiceOf('candidate', int8).build(outcome));
      const key = choiceKey(workspace, build(new Set()), settings);
      let found = await recallExecution(cache, key, all);
      if (!found) {
        found = await chooseByMeasuring(workspace, study, build, candidates, settings, cache, control);
        await rememberExecution(cache, key, found);
      }
      const { name, int8, refused } = found;
      const what = int8.size === 0 ? 'the model executes' : `${String(int8.size)} of ${String(all.size)} nodes execute`;
      const warning = `8-bit activations everywhere move the outputs too far; ${what} in ${int8.size === 0 ? 'float' : 'int8'}.`;
      return choiceOf(name, int8, refused > 0 && int8.size < all.size ? [warning] : []);
    },
    float,
  };
}

async function chooseByMeasuring(
  { engine, timedBatches, fixedBatch, feedsFor, scores }: Workspace,
  study: PreparedStudy,
  build: (int8: ReadonlySet<string>) => ModelProto,
  candidates: ReadonlyMap<string, Int8Candidate>,
  { target, threads }: ExecutionSettings,
  cache: MachineCache,
  control: RunControl,
): Promise<RememberedExecution> {
  const batches = timedBatches.map((size) => ({ size, feeds: feedsFor(size) }));
  const alternatives = await executionAlternatives({
    ...{ graph: new Graph(study.model), shapes: study.shapes, target, candidates, build, batches },
    ...(target === 'cpu' && { profiler: nodeProfiler(threads), cache }),
  });
  const probe = feedsFor(fixedBatch ?? JUDGED_SAMPLES);
  const reference = await runOnce(engine, study.model, probe);
  const sessions = executionSessions(engine, build);
  try {
    const judged = await judgeAlternatives(sessions, reference, alternatives, probe, scores, control.signal);
    const kept = judged.filter((alternative) => alternative.acceptable);
    const feeds = batches.map((batch) => batch.feeds);
    const { name, int8 } = await chooseExecution(sessions, kept, feeds, control);
    return { name, int8, refused: judged.length - kept.length };
  } finally {
    await sessions.closeAll();
  }
}

/** To be raised when the candidates, the judgement or the race change: what machines remember of before is void. */
const REVISION = 3;

/** Names everything that the choice depends on; the file in float stands for the model and its codes. */
function choiceKey({ timedBatches }: Workspace, floatFile: ModelProto, { target, threads }: ExecutionSettings): string {
  const hash = createHash('sha256');
  for (const chunk of encodeModel(floatFile)) hash.update(chunk);
  return `execution ${String(REVISION)} ${machineKey(threads)} ${target} ${timedBatches.join()} ${hash.digest('hex')}`;
}

/** Remembers the model of every set of int8 nodes: each is profiled, judged and timed. */
function builtOnce(build: (int8: ReadonlySet<string>) => ModelProto): (int8: ReadonlySet<string>) => ModelProto {
  const built = new Map<string, ModelProto>();
  return (int8) => {
    const key = executionKey(int8);
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
    plan: () => undefined,
  };
  return {
    quantizable: new Set(),
    largestFile: (outcome) => modelByteLength(build(outcome)),
    choose: () => Promise.resolve(choice),
    float: undefined,
  };
}
