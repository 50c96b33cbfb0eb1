/** `distill --student teacher`: a student with the graph of its teacher, with fewer units in every layer and fresh weights. */
import type { ModelProto } from 'onnx-buf';
import { randomStream, seedOf } from '../../data/random.js';
import { FlowCompressError } from '../../errors.js';
import { DataType } from '../../onnx/dtypes.js';
import { Graph, rewrite } from '../../onnx/graph.js';
import { findLayers } from '../../onnx/layers.js';
import { makeTensor } from '../../onnx/tensor.js';
import { baseName } from '../../report/format.js';
import { cutUnits } from '../../pruning/cut.js';
import { dependencyGroups } from '../../pruning/groups.js';
import { selectUnits } from '../../pruning/selection.js';
import type { Engine } from '../../runtime/engine.js';
import { guessFeeds } from '../../runtime/made-up-feeds.js';
import { trainableParameters } from '../../training/parameters.js';
import { lecunUniform, normal, ones, zeros, type Init } from '../../zoo/init.js';
import { prunableModel } from '../prune/removable.js';

/** The name of a student that stands for its teacher's graph. */
export const TEACHER = 'teacher';

/** What reports call it. @param teacher name of the file */
export function narrowedName(teacher: string, width: number): string {
  return `${baseName(teacher)}, ${String(width)} of the width`;
}

/** Units that are cut: of constants that are computed with, such as frequencies, none. */
const CUT = new Set(['filters', 'neurons', 'heads']);
/** Deviation of tables: positions, tokens. */
const TABLE = normal(0.02);

/**
 * @param width share of the units that every group of them keeps, one at least
 * @throws FlowCompressError `unsupported` for a teacher without units that could go, or without trainable weights
 */
export async function narrowedTeacher(
  engine: Engine,
  teacher: ModelProto,
  width: number,
  seed: number,
  name: string,
): Promise<ModelProto> {
  const unprepared = new Graph(teacher);
  const { model, shapes } = await prunableModel(engine, teacher, (rows) => guessFeeds(unprepared, rows).feeds);
  if (width === 1) return freshened(model, seed);
  const dependencies = dependencyGroups(model, shapes, { cutNormalized: true });
  const chosen = dependencies.groups
    .filter(({ kind }) => CUT.has(kind))
    .map(({ index, units }) => {
      const kept = Math.max(1, Math.round(units.length * width));
      return { group: index, units: Array.from({ length: units.length - kept }, (_, i) => kept + i) };
    });
  if (chosen.every(({ units }) => units.length === 0))
    throw new FlowCompressError('unsupported', 'No layer of the teacher could be narrower.', {
      node: name,
      hint: '`flow-compress inspect --groups` says why; name another --student.',
    });
  return freshened(cutUnits(model, selectUnits(dependencies, chosen)), seed);
}

/** The same network before it was trained: layers uniform in 1 / sqrt(fan in), biases 0, normalizations 1 and 0. */
function freshened(model: ModelProto, seed: number): ModelProto {
  return rewrite(model, (graph) => {
    const inits = new Map<string, { readonly init: Init; readonly fanIn: number }>();
    for (const { weight, cols } of findLayers(graph)) inits.set(weight.name, { init: lecunUniform, fanIn: cols });
    for (const node of graph.nodes) {
      if (!node.opType.endsWith('Normalization')) continue;
      for (const [i, init] of [undefined, ones, zeros, zeros, ones].entries()) {
        const value = node.inputs[i];
        if (init && value?.initializer) inits.set(value.name, { init, fanIn: 1 });
      }
    }
    const layout = trainableParameters(graph);
    const statistics = [...inits.keys()].filter((name) => !layout.some((one) => one.name === name));
    for (const [i, { name, decays }] of [
      ...layout,
      ...statistics.map((one) => ({ name: one, decays: false })),
    ].entries()) {
      const value = graph.mustGet(name);
      const dims = value.initializer!.dims.map(Number);
      const count = dims.reduce((a, b) => a * b, 1);
      const { init, fanIn } = inits.get(name) ?? { init: decays ? TABLE : zeros, fanIn: 1 };
      const data = init({ count, fanIn, fanOut: 1 }, randomStream(seedOf(seed, i, 1301)));
      graph.setInitializer(value, makeTensor(name, DataType.FLOAT, dims, data));
    }
  });
}
