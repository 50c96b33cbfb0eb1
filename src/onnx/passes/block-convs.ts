/** Gives convolutions whose weights are computed or fed the blocked layout, which ONNX Runtime keeps for constant ones. */
import {
  blockChannelWeights,
  blockedConv,
  blockWeights,
  canBlock,
  filledUp,
  fromBlocked,
  toBlocked,
  wholeBlocks,
} from '../blocked.js';
import { convGeometry } from '../conv-geometry.js';
import type { Graph, Node, Value } from '../graph.js';

/** Dims by name of value, with undefined for sizes that vary. */
export type Shapes = Map<string, readonly (number | undefined)[]>;

/**
 * Rewrites in place; returns how many. Convolutions of two axes, one group or one channel per group, and results for half a block at
 * least.
 * @param shapes those of new values are added
 * @param block elements of a block, as `layoutBlock` finds them
 */
export function blockConvolutions(graph: Graph, block: number, shapes: Shapes): number {
  let count = 0;
  for (const node of graph.nodes) {
    if (!node.is('Conv') || graph.constant(node.inputs[1])) continue;
    const result = blocked(graph, node, block, shapes);
    if (!result) continue;
    const dims = shapes.get(node.outputs[0]!.name);
    if (dims) shapes.set(result.name, dims);
    graph.replaceUses(node.outputs[0]!, result);
    if (!graph.isGraphOutput(node.outputs[0]!)) graph.remove(node);
    count++;
  }
  return count;
}

function blocked(graph: Graph, node: Node, block: number, shapes: Shapes): Value | undefined {
  const [x, weight, bias] = node.inputs as [Value, Value, Value | undefined];
  const dims = known(shapes.get(weight.name), 0);
  const input = known(shapes.get(x.name), 1);
  const groups = node.int('group', 1);
  if (dims?.length !== 4 || !input) return undefined;
  const [outer, inner] = dims as [number, number];
  const single = groups > 1 && groups === outer && groups === input[1];
  // Narrower ones would mostly compute the channels that fill a block up.
  if (!(single || groups === 1) || outer < block / 2) return undefined;
  const plain = !single && inner < block;
  if (!plain && !canBlock(input[1]!)) return undefined;
  const geometry = convGeometry(node, input, dims);
  const channels = wholeBlocks(outer, block);
  const found = blockedConv(
    graph,
    // Convolutions of fewer channels than a block read the plain layout.
    plain ? x : toBlocked(graph, x),
    (single ? blockChannelWeights : blockWeights)(graph, weight, dims, block),
    { ...geometry, groups: single ? channels : 1 },
    bias && filledUp(graph, bias, [channels - outer]),
  );
  return fromBlocked(graph, found, outer);
}

/** The dims from axis `first` on must be known. */
function known(shape: readonly (number | undefined)[] | undefined, first: number): number[] | undefined {
  return shape?.slice(first).every((size) => size !== undefined) ? shape.map((size) => size ?? 1) : undefined;
}
