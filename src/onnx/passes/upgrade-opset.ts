/** Raises a model of opset 7 to 12 to opset 13, so that the rest of the library meets one form of every operator. */
import { create } from '@bufbuild/protobuf';
import { ModelProtoSchema, type AttributeProto, type GraphProto } from 'onnx-buf';
import { FlowCompressError } from '../../errors.js';
import { Graph, type Node } from '../graph.js';
import { withFields } from '../message.js';
import { UNCHANGED, UPGRADE_RULES, cannotUpgrade } from './upgrade-rules.js';

const TARGET = 13;
/** File format version that came with opset 13. */
const TARGET_IR = 7;
const OLDEST = 7;

export interface OpsetUpgrade {
  /** Version of the default domain before and after. */
  readonly from: number;
  readonly to: number;
  /** Nodes that were rewritten, those of subgraphs included. */
  readonly rewritten: number;
  /** Initializers that no longer are graph inputs. */
  readonly withdrawn: number;
}

/**
 * Raises the default domain from 7..12 to 13, with exactly the same results, and takes initializers out of the list of
 * graph inputs (files before IR 4 had to list them there, where engines cannot fold them). Models of opset 13 and newer
 * keep their opset. Runs in place; when it throws, the graph must be discarded.
 * @throws FlowCompressError `unsupported` naming a node that has no exact form at opset 13.
 */
export function upgradeOpset(graph: Graph): OpsetUpgrade {
  const withdrawn = withdrawInitializers(graph);
  const from = graph.opset();
  if (from === 0 || from >= TARGET) return { from, to: from, rewritten: 0, withdrawn };
  if (from < OLDEST) {
    throw new FlowCompressError(
      'unsupported',
      `The model uses opset ${String(from)}; 7 is the oldest that is handled.`,
      {
        hint: 'Export the model again with opset 13 or higher.',
      },
    );
  }
  if (graph.functions.length > 0) {
    throw new FlowCompressError(
      'unsupported',
      `A model of opset ${String(from)} with functions cannot be raised to 13.`,
      {
        node: graph.functions[0]!.name,
        hint: 'Export the model again with opset 13 or higher.',
      },
    );
  }
  const rewritten = upgradeNodes(graph, from);
  graph.requireOpset(TARGET);
  graph.irVersion = Math.max(graph.irVersion, TARGET_IR);
  return { from, to: TARGET, rewritten, withdrawn };
}

/** Takes every initializer out of the list of graph inputs and returns how many there were. */
export function withdrawInitializers(graph: Graph): number {
  const listed = graph.inputs.filter((value) => value.isInitializer);
  for (const value of listed) graph.withdrawInput(value);
  return listed.length;
}

function upgradeNodes(graph: Graph, from: number): number {
  let rewritten = 0;
  for (const node of graph.nodes) {
    rewritten += upgradeBodies(graph, node, from);
    if (node.domain !== '') continue;
    if (node.attributes.has('broadcast')) throw cannotUpgrade(node, from, 'it broadcasts as before opset 7');
    const rule = UPGRADE_RULES.get(node.opType);
    if (rule) rewritten += rule(graph, node, from) ? 1 : 0;
    else if (!UNCHANGED.has(node.opType)) throw cannotUpgrade(node, from, 'the operator is not known at that opset');
  }
  return rewritten;
}

/** Upgrades the subgraphs of a node, each as a graph of its own that may not take a name in use around it. */
function upgradeBodies(graph: Graph, node: Node, from: number): number {
  let rewritten = 0;
  const upgrade = (body: GraphProto): GraphProto => {
    const model = create(ModelProtoSchema, { opsetImport: [{ domain: '', version: BigInt(from) }], graph: body });
    const inner = new Graph(model);
    inner.reserveNames(graph.usedNames());
    const changed = upgradeNodes(inner, from);
    if (changed === 0) return body;
    rewritten += changed;
    // The names made here must stay unknown to the next body.
    graph.reserveNames(inner.usedNames());
    return inner.toModel().graph!;
  };
  for (const attribute of [...node.attributes.values()]) {
    if (!attribute.g && attribute.graphs.length === 0) continue;
    const graphs: Partial<AttributeProto> = { graphs: attribute.graphs.map(upgrade) };
    if (attribute.g) graphs.g = upgrade(attribute.g);
    graph.setAttribute(node, withFields(attribute, graphs));
  }
  return rewritten;
}
