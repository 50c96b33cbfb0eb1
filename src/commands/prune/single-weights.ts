/** `prune` with a method that removes single weights: what is left learns, and the file stores it sparse-packed. */
import type { ModelProto } from 'onnx-buf';
import { throwIfAborted } from '../../errors.js';
import { gatherGrams } from '../../flow/gather-grams.js';
import { DataType } from '../../onnx/dtypes.js';
import { Graph, rewrite } from '../../onnx/graph.js';
import { findLayers, fromMatrix, weightMatrix } from '../../onnx/layers.js';
import { compactNames } from '../../onnx/passes/compact.js';
import { makeTensor } from '../../onnx/tensor.js';
import { modelByteLength } from '../../onnx/write.js';
import type { RunControl } from '../../progress.js';
import type { WeightMethod } from '../../pruning/methods.js';
import { samePlaces } from '../../pruning/places.js';
import type { QuantizedWeights } from '../../quantization/placement.js';
import { dequantize } from '../../quantization/round-layer.js';
import type { WeightUnit } from '../../quantization/units.js';
import type { Student } from '../../recovery/recover.js';
import type { PruneReport, RecoverySummary } from '../../report/report.js';
import { cubicSparsity, kernelSparsities, localMasks, magnitudeMasks, sparsifiable } from '../../sparse/magnitude.js';
import { obsPrune } from '../../sparse/obs.js';
import { sparseStudent, type ChooseMasks } from '../../sparse/sparse-student.js';
import { deploySparse, storeSparse } from '../../sparse/sparse-writer.js';
import { layoutOf, readParameters } from '../../training/parameters.js';
import type { PruningRun, PruningStudy } from './study.js';
import { learnFromOriginal } from '../recover/recovery.js';
import type { Workspace } from '../workspace.js';

export interface SparseResult {
  readonly model: ModelProto;
  readonly steps: PruneReport['steps'];
  readonly summary: RecoverySummary | undefined;
  /** Share of the weights that took part that are gone. */
  readonly sparsity: number;
  /** Of the same file with what is left in float: what the removal makes without the rounding. */
  readonly bytesInFloat: number;
}

/** Share of the weights that goes when none is given. */
export const DEFAULT_SPARSITY = 0.9;
/** Share of the learning in which a rising sparsity rises, and the updates between two choices of masks. */
const RISE = 0.5;
const EVERY = 5;

/** @throws FlowCompressError as `learnFromOriginal` */
export async function pruneWeights(
  { workspace, study, settings, learning, clock, control, run }: PruningRun,
  method: WeightMethod,
): Promise<SparseResult> {
  const began = performance.now();
  const { model } = study.original;
  const units = sparsifiable(new Graph(model));
  const sparsity = settings.sparsity ?? DEFAULT_SPARSITY;
  const dims = new Map(units.map(({ layer }) => [layer.weight.name, layer.dims]));
  const choose: ChooseMasks = (weights, share) =>
    method.choice === 'global'
      ? magnitudeMasks(weights, share, { scope: 'global', measure: 'plain' })
      : localMasks(weights, kernelSparsities(dims, share));
  const start =
    method.choice === 'surgeon'
      ? await clock.stage('cut and fit', () =>
          operated(workspace, study, units, kernelSparsities(dims, sparsity), control),
        )
      : model;
  const pruned = sparseStudent(start, new Set(dims.keys()), sparsity, choose);
  type Weights = ReadonlyMap<string, QuantizedWeights>;
  const build = (weights: Weights): ModelProto =>
    rewrite(deploySparse(model, { weights, activations: new Map(), int8: new Set() }), compactNames);
  const first = pruned.of(readParameters(pruned.model, pruned.parameters));
  const cut = await clock.stage('evaluate on VAL', () => study.qualityOf(build(first)));
  const rises = method.choice === 'gradual';
  const student: Student<Weights> = {
    ...{ model: pruned.model, parameters: pruned.parameters, of: pruned.of },
    layout: `${layoutOf(pruned.parameters)} ${method.name} ${String(sparsity)}`,
    // Where the sparsity does not rise, the masks are chosen once.
    adjusted(flat, step, share) {
      if (rises ? share > RISE + EVERY / 1000 || step % EVERY !== 0 : step > 0) return undefined;
      return pruned.pruned(flat, rises ? cubicSparsity(Math.min(share / RISE, 1), 1, 0, sparsity) : sparsity);
    },
  };
  const learned =
    learning &&
    (await clock.stage('learn', () =>
      learnFromOriginal(
        workspace,
        {
          ...{ teacher: model, student, taught: samePlaces(model, pruned.model), start: first, build },
          options: learning,
          kept: true,
        },
        settings,
        control,
        run?.cache,
      ),
    ));
  const weights = learned?.state ?? first;
  const recovered = learned?.summary.after;
  return {
    model: build(weights),
    summary: learned?.summary,
    sparsity: shareOfZeros(units, weights),
    bytesInFloat: modelByteLength(rewrite(storeSparse(withWeights(model, weights)), compactNames)),
    steps: [
      {
        ...{ step: 1, units: 0, branches: [], accepted: true, cut },
        params: study.cost.params,
        ...(study.cost.macs !== undefined && { macs: Math.round(study.cost.macs) }),
        ...(recovered && learned && { recovered, updates: learned.summary.steps }),
        seconds: (performance.now() - began) / 1000,
      },
    ],
  };
}

/** The model with the weights that Optimal Brain Surgeon leaves; layers without Gram matrices go by magnitude. */
async function operated(
  { engine, working, batch }: Workspace,
  { original }: PruningStudy,
  units: readonly WeightUnit[],
  sparsities: ReadonlyMap<string, number>,
  control: RunControl,
): Promise<ModelProto> {
  const { model, shapes } = original;
  const grams = await gatherGrams(
    {
      ...{ engine, model, shapes, samples: working.calib.size, layers: units.map(({ layer }) => layer) },
      batches: () => batch(working.calib),
    },
    control,
  );
  return rewrite(model, (graph) => {
    for (const [done, { layer }] of units.entries()) {
      control.onProgress?.({ stage: 'remove weights', done, total: units.length, detail: layer.name });
      throwIfAborted(control.signal);
      const gram = grams.get(layer.name);
      if (!gram) continue;
      const { name } = layer.weight;
      const { weights } = obsPrune(layer, weightMatrix(graph, layer), gram, sparsities.get(name)!);
      graph.setInitializer(
        graph.mustGet(name),
        makeTensor(name, DataType.FLOAT, layer.dims, fromMatrix(layer, weights)),
      );
    }
    control.onProgress?.({ stage: 'remove weights', done: units.length, total: units.length });
  });
}

/** The model with rounded weights as float tensors. */
function withWeights(model: ModelProto, weights: ReadonlyMap<string, QuantizedWeights>): ModelProto {
  return rewrite(model, (graph) => {
    for (const layer of findLayers(graph)) {
      const rounded = weights.get(layer.name);
      if (!rounded) continue;
      const values = fromMatrix(layer, dequantize(layer, rounded));
      graph.setInitializer(layer.weight, makeTensor(layer.weight.name, DataType.FLOAT, layer.dims, values));
    }
  });
}

function shareOfZeros(units: readonly WeightUnit[], weights: ReadonlyMap<string, QuantizedWeights>): number {
  let [zeros, all] = [0, 0];
  for (const { layer } of units) {
    const codes = weights.get(layer.name)?.codes ?? new Int8Array();
    for (const code of codes) if (code === 0) zeros++;
    all += codes.length;
  }
  return all > 0 ? zeros / all : 0;
}
