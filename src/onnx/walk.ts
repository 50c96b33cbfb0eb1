/** Visits every tensor of a model, wherever ONNX allows one. */
import type { AttributeProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto } from 'onnx-buf';

/** Where a tensor was found. `owner` names the node, or the tensor itself, for messages. */
export interface TensorPlace {
  readonly kind: 'initializer' | 'sparse' | 'attribute';
  readonly owner: string;
}

export type VisitTensor = (tensor: TensorProto, place: TensorPlace) => void;

/** Name of a node for messages: its own, or its operator and first output. */
export function nodeLabel(node: NodeProto): string {
  if (node.name !== '') return node.name;
  const output = node.output.find((name) => name !== '');
  return output === undefined ? `unnamed ${node.opType}` : `${node.opType} -> ${output}`;
}

/** Every graph held by an attribute: the body of a loop, the branches of an If. */
export function subgraphsOf(node: NodeProto): GraphProto[] {
  const graphs: GraphProto[] = [];
  for (const attribute of node.attribute) {
    if (attribute.g) graphs.push(attribute.g);
    for (const graph of attribute.graphs) graphs.push(graph);
  }
  return graphs;
}

function visitSparse(sparse: SparseTensorProto, owner: string, visit: VisitTensor): void {
  if (sparse.values) visit(sparse.values, { kind: 'sparse', owner });
  if (sparse.indices) visit(sparse.indices, { kind: 'sparse', owner });
}

function visitAttribute(attribute: AttributeProto, owner: string, visit: VisitTensor, pending: GraphProto[]): void {
  if (attribute.t) visit(attribute.t, { kind: 'attribute', owner });
  for (const tensor of attribute.tensors) visit(tensor, { kind: 'attribute', owner });
  if (attribute.sparseTensor) visitSparse(attribute.sparseTensor, owner, visit);
  for (const sparse of attribute.sparseTensors) visitSparse(sparse, owner, visit);
  if (attribute.g) pending.push(attribute.g);
  for (const graph of attribute.graphs) pending.push(graph);
}

function visitNodes(nodes: readonly NodeProto[], visit: VisitTensor, pending: GraphProto[]): void {
  for (const node of nodes) {
    if (node.attribute.length === 0) continue;
    const owner = nodeLabel(node);
    for (const attribute of node.attribute) visitAttribute(attribute, owner, visit, pending);
  }
}

/**
 * Calls `visit` for every dense tensor: initializers, values and indices of sparse initializers, and attributes of
 * nodes, in the graph, its subgraphs, the functions and the training graphs.
 */
export function visitTensors(model: ModelProto, visit: VisitTensor): void {
  const pending: GraphProto[] = [];
  if (model.graph) pending.push(model.graph);
  for (const info of model.trainingInfo) {
    if (info.initialization) pending.push(info.initialization);
    if (info.algorithm) pending.push(info.algorithm);
  }
  for (const fn of model.functions) {
    visitNodes(fn.node, visit, pending);
    for (const attribute of fn.attributeProto) visitAttribute(attribute, fn.name, visit, pending);
  }
  for (let graph = pending.pop(); graph; graph = pending.pop()) {
    for (const tensor of graph.initializer) visit(tensor, { kind: 'initializer', owner: tensor.name });
    for (const sparse of graph.sparseInitializer) visitSparse(sparse, sparse.values?.name ?? '', visit);
    visitNodes(graph.node, visit, pending);
  }
}
