/** `distill --student teacher`: a student with the graph of its teacher, with fewer units in every layer and fresh weights. */
import type { ModelProto } from 'onnx-buf';
import { FlowCompressError } from '../../errors.js';
import { Graph } from '../../onnx/graph.js';
import { baseName } from '../../report/format.js';
import { cutUnits } from '../../pruning/cut.js';
import { dependencyGroups } from '../../pruning/groups.js';
import { selectUnits } from '../../pruning/selection.js';
import { renewed } from '../../recovery/renew.js';
import type { Engine } from '../../runtime/engine.js';
import { guessFeeds } from '../../runtime/made-up-feeds.js';
import { prunableModel } from '../prune/removable.js';

/** The name of a student that stands for its teacher's graph. */
export const TEACHER = 'teacher';

/** What reports call it. @param teacher name of the file */
export function narrowedName(teacher: string, width: number): string {
  return `${baseName(teacher)}, ${String(width)} of the width`;
}

/** Units that are cut: of constants that are computed with, such as frequencies, none. */
const CUT = new Set(['filters', 'neurons', 'heads']);
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
  if (width === 1) return renewed(model, seed);
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
  return renewed(cutUnits(model, selectUnits(dependencies, chosen)), seed);
}
