/**
 * Residual blocks: sums y = skip + F(x) whose skip is x itself, or x behind a shortcut that only fits its shape (a 1x1
 * convolution, pooling, slicing and padding).
 */
import type { Graph, Node, Value } from '../onnx/graph.js';
import type { WeightLayer } from '../onnx/layers.js';

export interface ResidualBlock {
  readonly name: string;
  readonly add: Node;
  /** x. */
  readonly source: Value;
  /** Operand of the sum on the shortcut; the source itself for identity blocks. */
  readonly skip: Value;
  /** F(x), the other operand. */
  readonly branch: Value;
  /** y. */
  readonly output: Value;
  readonly identity: boolean;
  /** Weight layers between the source and the branch, in topological order. */
  readonly layers: readonly WeightLayer[];
  /** The projection on the shortcut, if it has one. */
  readonly shortcut?: WeightLayer;
}

/** Nodes looked at, backwards from a branch, before it is given up: keeps the search linear in the graph. */
const WINDOW = 512;
const MAX_SHORTCUT = 12;
/** Branches that may start side by side from one source. */
const MAX_PARALLEL = 3;
const SHORTCUT_OPS = new Set([
  'AveragePool',
  'MaxPool',
  'BatchNormalization',
  'Slice',
  'Pad',
  'Concat',
  'Reshape',
  'Flatten',
  'Transpose',
  'Squeeze',
  'Unsqueeze',
  'Identity',
  'Cast',
]);
/** A branch that changes resolution this way merges scales (U-Net, feature pyramids): not a residual block. */
const RESIZING = new Set(['Resize', 'Upsample', 'ConvTranspose', 'MaxUnpool', 'DepthToSpace']);

/** Every residual block, in topological order. */
export function findBlocks(graph: Graph, layers: readonly WeightLayer[]): ResidualBlock[] {
  const nodes = graph.nodes;
  const position = new Map(nodes.map((node, i) => [node, i]));
  const layerOf = new Map(layers.map((layer) => [layer.node, layer]));
  const search: Search = { graph, position, layerOf };
  const blocks: ResidualBlock[] = [];
  const blockOf = new Map<Value, ResidualBlock>();
  for (const node of nodes) {
    if (!node.is('Add') && !(node.is('Sum') && node.inputs.length === 2)) continue;
    const [a, b] = node.inputs;
    const output = node.outputs[0];
    if (!a || !b || !output || a === b || graph.constant(a) || graph.constant(b)) continue;
    const found =
      identityBlock(search, a, b, blockOf) ?? identityBlock(search, b, a, blockOf) ?? projectionBlock(search, a, b);
    if (!found) continue;
    const block = { name: node.label, add: node, output, ...found };
    blocks.push(block);
    blockOf.set(output, block);
  }
  return blocks;
}

interface Search {
  readonly graph: Graph;
  readonly position: ReadonlyMap<Node, number>;
  readonly layerOf: ReadonlyMap<Node, WeightLayer>;
}

type Found = Omit<ResidualBlock, 'name' | 'add' | 'output'>;

/** `skip` is an ancestor of `branch`; or what `skip`'s own block started from is (parallel branches x + F(x) + G(x)). */
function identityBlock(
  search: Search,
  skip: Value,
  branch: Value,
  blockOf: ReadonlyMap<Value, ResidualBlock>,
): Found | undefined {
  const sources = [skip];
  let block = blockOf.get(skip);
  for (let hop = 0; block?.identity && hop < MAX_PARALLEL; hop++) {
    sources.push(block.source);
    block = blockOf.get(block.skip);
  }
  for (const source of sources) {
    const between = nodesBetween(search, source, branch);
    const layers = between && weightLayers(search, between);
    if (layers && layers.length > 0) return { source, skip, branch, identity: true, layers };
  }
  return undefined;
}

/** One operand reaches a common ancestor through shape-fitting operators only, the other through a real branch. */
function projectionBlock(search: Search, a: Value, b: Value): Found | undefined {
  const fromA = shortcutFrom(search, a, b);
  const fromB = shortcutFrom(search, b, a);
  // Two shortcuts side by side (parallel 1x1 convolutions) have no branch to speak of.
  return fromA && fromB ? undefined : (fromA ?? fromB);
}

function shortcutFrom(search: Search, skip: Value, branch: Value): Found | undefined {
  let value = skip;
  let shortcut: WeightLayer | undefined;
  for (let hop = 0; hop < MAX_SHORTCUT; hop++) {
    const node = value.producer;
    if (!node || node.domain !== '') return undefined;
    const layer = search.layerOf.get(node);
    if (layer) {
      if (shortcut || !isProjection(layer)) return undefined;
      shortcut = layer;
    } else if (!SHORTCUT_OPS.has(node.opType)) {
      return undefined;
    }
    const varying = node.inputs.filter((v) => v && !search.graph.constant(v));
    const next = layer
      ? layer.input
      : node.opType === 'Concat'
        ? varying.length === 1
          ? varying[0]
          : undefined
        : node.inputs[0];
    if (!next || search.graph.constant(next)) return undefined;
    value = next;
    const between = nodesBetween(search, value, branch);
    if (!between) continue;
    const layers = weightLayers(search, between);
    if (layers.length === 0 || between.some((n) => RESIZING.has(n.opType))) return undefined;
    return { source: value, skip, branch, identity: false, layers, ...(shortcut ? { shortcut } : {}) };
  }
  return undefined;
}

/** A layer that mixes channels at each position alone: Gemm, MatMul or a convolution with a kernel of one. */
function isProjection(layer: WeightLayer): boolean {
  if (layer.op === 'Gemm' || layer.op === 'MatMul') return true;
  return layer.op === 'Conv' && layer.groups === 1 && layer.dims.slice(2).every((k) => k === 1);
}

function weightLayers(search: Search, nodes: readonly Node[]): WeightLayer[] {
  return nodes.map((node) => search.layerOf.get(node)).filter((layer) => layer !== undefined);
}

/**
 * Nodes on the paths from `source` to `target`, in topological order; undefined when there is none or when more than
 * WINDOW nodes lie upstream of the target and after the source.
 */
function nodesBetween({ position }: Search, source: Value, target: Value): Node[] | undefined {
  const floor = source.producer ? position.get(source.producer)! : -1;
  const upstream = new Set<Node>();
  const queue: Node[] = [];
  const visit = (value: Value | undefined): void => {
    const node = value?.producer;
    if (!node || value === source || upstream.has(node) || position.get(node)! <= floor) return;
    upstream.add(node);
    queue.push(node);
  };
  visit(target);
  for (let at = 0; at < queue.length; at++) {
    if (queue.length > WINDOW) return undefined;
    for (const input of queue[at]!.inputs) visit(input);
    for (const { value } of queue[at]!.captures) visit(value);
  }
  const ordered = queue.sort((m, n) => position.get(m)! - position.get(n)!);
  const reached = new Set<Value>([source]);
  const between = ordered.filter((node) => {
    const on = node.inputs.some((v) => v && reached.has(v)) || node.captures.some(({ value }) => reached.has(value));
    if (on) for (const output of node.outputs) if (output) reached.add(output);
    return on;
  });
  return target !== source && reached.has(target) ? between : undefined;
}
