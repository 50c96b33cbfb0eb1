/** Operators that read how long the axes of a value are: what they read must stay as it is. */
import { axisFromStart } from '../../onnx/axis.js';
import type { Node } from '../../onnx/graph.js';
import type { PruningRule, PruningRules } from '../rule.js';
import type { Ties } from '../ties.js';

/** Axes of which the length is read. */
function readAxes(node: Node, ties: Ties, rank: number): number[] {
  const bound = (attribute: string, open: number): number =>
    Math.min(Math.max(axisFromStart(node.int(attribute, open), rank), 0), rank);
  const given = Array.from({ length: rank }, (_, axis) => axis).slice(bound('start', 0), bound('end', rank));
  const output = node.outputs[0];
  if (!output || ties.graph.isGraphOutput(output)) return given;
  const read: number[] = [];
  for (const { node: reader, index } of output.uses) {
    const picked = reader.is('Gather') && index === 0 ? ties.ints(reader.inputs[1]) : undefined;
    if (!picked) return given;
    read.push(...picked.map((number) => given[axisFromStart(number, given.length)]));
  }
  return read;
}

const shape: PruningRule = {
  follow: (node, ties) => {
    const x = ties.mustHave(node.inputs[0]);
    const read = readAxes(node, ties, x.length);
    for (const [at, axis] of x.entries()) {
      if (read.includes(at)) ties.fix(axis, 'reads how long it is');
      else ties.free(axis);
    }
    ties.fixAll(node.outputs, 'is a shape');
  },
};

export const shapes: PruningRules = { Shape: shape };
