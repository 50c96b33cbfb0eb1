/** Random selections of units, and models whose weights are all different, for tests of cuts. */
import type { ModelProto } from 'onnx-buf';
import { randomStream } from '../data/random.js';
import { DataType } from '../onnx/dtypes.js';
import { rewrite } from '../onnx/graph.js';
import { makeTensor, readFloats } from '../onnx/tensor.js';
import { validateModel } from '../onnx/validate.js';
import { checkCut, relativeDifference } from '../pruning/check-cut.js';
import { cutUnits } from '../pruning/cut.js';
import { dependencyGroups, type Dependencies } from '../pruning/groups.js';
import { selectUnits, type Selection } from '../pruning/selection.js';
import type { Feeds } from '../runtime/engine.js';
import { runOnce } from '../runtime/run-once.js';
import { traceDims } from '../runtime/trace.js';
import { engine } from './graph-writing.js';

/** That fraction of the units of every group, one of them at least where there are two. */
export function randomSelection(dependencies: Dependencies, fraction: number, seed: number): Selection {
  const random = randomStream(seed);
  const chosen = dependencies.groups.map(({ index, units }) => {
    const places = [...units.keys()];
    const count = Math.min(units.length - 1, Math.max(1, Math.floor(fraction * units.length)));
    const taken = Array.from({ length: count }, () => places.splice(random.int(places.length), 1)[0]!);
    return { group: index, units: taken };
  });
  return selectUnits(dependencies, chosen);
}

/** The model with weights that all differ: no channel is 0 or like another one, what is positive stays so, and no scale is tiny. */
export function stirred(model: ModelProto, seed: number): ModelProto {
  const random = randomStream(seed);
  return rewrite(model, (graph) => {
    for (const value of graph.values()) {
      const tensor = value.initializer;
      if (tensor?.dataType !== Number(DataType.FLOAT)) continue;
      const old = readFloats(tensor);
      if (old.length < 2) continue;
      const positive = old.every((x) => x > 0);
      const scale = 0.3 * Math.max(0.1, Math.sqrt(old.reduce((sum, x) => sum + x * x, 0) / old.length));
      const data = old.map((x) =>
        positive ? Math.max(x, 0.1) * Math.exp(0.2 * random.normal()) : x + scale * random.normal(),
      );
      graph.setInitializer(value, makeTensor(value.name, DataType.FLOAT, tensor.dims, data));
    }
  });
}

export interface CheckedCut {
  readonly dependencies: Dependencies;
  readonly cut: ModelProto;
  /** How far the zeros move the outputs, relative to the largest: a check of a cut without effect proves nothing. */
  readonly effect: number;
}

/**
 * Cuts and holds the result against the original with zeros. @throws FlowCompressError as `checkCut`
 * @param choose what to cut; a third of the units of every group by default
 */
export async function cutAndCheck(
  model: ModelProto,
  feeds: Feeds,
  choose: (dependencies: Dependencies) => Selection = (dependencies) => randomSelection(dependencies, 0.34, 5),
): Promise<CheckedCut> {
  const dependencies = dependencyGroups(model, await traceDims(engine, model, feeds));
  const selection = choose(dependencies);
  const cut = cutUnits(model, selection);
  validateModel(cut, { requireSorted: true });
  await checkCut(engine, model, cut, selection, feeds);
  const before = await runOnce(engine, model, feeds);
  const after = await runOnce(engine, cut, feeds);
  const effect = Math.max(...Object.keys(before).map((name) => relativeDifference(before[name]!, after[name])));
  return { dependencies, cut, effect };
}
