/** Operators that read how long the axes of a value are: what they read must stay as it is. */
import { axisFromStart } from '../../onnx/axis.js';
import type { Node } from '../../onnx/graph.js';
import type { PruningRule, PruningRules } from '../rule.js';
import type { Ties } from '../ties.js';

/** Axes of which the length is read; undefined for all of them. */
function readAxes(node: Node, ties: Ties, rank: number): Set<number> | undefined {
  const output = node.outputs[0];
  if (!output || ties.graph.isGraphOutput(output)) return undefined;
  const read = new Set<number>();
  for (const { node: reader, index } of output.uses) {
    const picked = reader.is('Gather') && index === 0 ? ties.ints(reader.inputs[1]) : undefined;
    if (!picked) return undefined;
    const length = ties.dims(output)?.[0] ?? rank;
    const start = axisFromStart(node.int('start', 0), rank);
    for (const number of picked) read.add(start + axisFromStart(number, length));
  }
  return read;
}

const shape: PruningRule = {
  follow: (node, ties) => {
    const x = ties.mustHave(node.inputs[0]);
    const read = readAxes(node, ties, x.length);
    for (const [at, axis] of x.entries()) {
      if (read && !read.has(at)) ties.free(axis);
      else ties.fix(axis, 'reads how long it is');
    }
    ties.fixAll(node.outputs, 'is a shape');
  },
};

export const shapes: PruningRules = { Shape: shape };
