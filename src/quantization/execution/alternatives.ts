/** The executions worth timing: all float, everything in int8, and the regions that operator times suggest. */
import type { ModelProto } from 'onnx-buf';
import type { Graph } from '../../onnx/graph.js';
import type { Feeds } from '../../runtime/engine.js';
import type { MachineCache } from '../../runtime/machine-cache.js';
import { borderTimesOf, measureNodes, type Profiler } from '../../runtime/op-times.js';
import { TARGETS, type TargetName } from '../../runtime/target.js';
import type { TracedValues } from '../../runtime/trace.js';
import type { Int8Candidate } from './candidates.js';
import { withoutDuplicates, type ExecutionAlternative } from './choose.js';
import { measuredCosts, tableCosts, weightedSum } from './costs.js';
import { planRegions, type ExecutionCosts } from './plan.js';

export interface AlternativesRequest {
  readonly graph: Graph;
  /** Dims of every value for one sample. */
  readonly shapes: TracedValues;
  readonly target: TargetName;
  readonly candidates: ReadonlyMap<string, Int8Candidate>;
  /** The file with these nodes in int8. */
  readonly build: (int8: ReadonlySet<string>) => ModelProto;
  /** Feeds of each batch size that counts, with the number of samples. */
  readonly batches: readonly { readonly size: number; readonly feeds: Feeds }[];
  /** Measures on this machine; the target's table is used without. */
  readonly profiler?: Profiler;
  readonly cache?: MachineCache;
}

/** Runs under the profiler; the median of each kernel is taken. */
const PROFILED_RUNS = 5;

/** `float`, `int8` (all candidates) and the planned regions, in this order, without those that are the same as an earlier one. */
export async function executionAlternatives(request: AlternativesRequest): Promise<ExecutionAlternative[]> {
  const { graph, candidates } = request;
  const alternatives: ExecutionAlternative[] = [{ name: 'float', int8: new Set() }];
  if (candidates.size === 0) return alternatives;
  const all = new Set(candidates.keys());
  alternatives.push({ name: 'int8', int8: all });
  // Arithmetic between activations bears 8 bits less well than layers do: where it does not, the layers alone may.
  const layers = [...candidates].filter(([, candidate]) => candidate.kind === 'weighted').map(([name]) => name);
  alternatives.push({ name: 'int8-layers', int8: new Set(layers) });
  const plan = (name: string, costs: ExecutionCosts): void => {
    alternatives.push({ name, int8: planRegions(graph, candidates, costs) });
  };
  const parts = await costsByBatch(request, all);
  for (const { size, costs } of parts) plan(`planned-batch-${String(size)}`, costs);
  if (parts.length > 1) plan('planned', weightedSum(parts));
  return withoutDuplicates(alternatives);
}

interface BatchCosts {
  readonly size: number;
  readonly costs: ExecutionCosts;
  /** Puts the batches on one scale: 1 / time of the float file. */
  readonly weight: number;
}

async function costsByBatch(request: AlternativesRequest, all: ReadonlySet<string>): Promise<BatchCosts[]> {
  const { graph, shapes, candidates, profiler, batches, build } = request;
  const parts: BatchCosts[] = [];
  if (profiler) {
    const borders = await borderTimesOf(profiler, request.cache);
    const [floatModel, int8Model] = [build(new Set()), build(all)];
    const feeds = batches.map((batch) => batch.feeds);
    const floatTimes = await measureNodes(profiler, floatModel, feeds, PROFILED_RUNS);
    const int8Times = await measureNodes(profiler, int8Model, feeds, PROFILED_RUNS);
    batches.forEach(({ size }, b) => {
      const [float, int8] = [floatTimes[b]!, int8Times[b]!];
      const costs = measuredCosts(graph, shapes, { batch: size, float, int8, borders });
      parts.push({ size, costs, weight: 1 / Math.max(float.total, 1) });
    });
    return parts;
  }
  const table = TARGETS[request.target].int8;
  if (!table) return parts;
  for (const { size } of batches) {
    const costs = tableCosts(graph, shapes, table, size);
    let total = 0;
    for (const candidate of candidates.values()) total += costs.node(candidate, 'float');
    parts.push({ size, costs, weight: 1 / Math.max(total, 1) });
  }
  return parts;
}
