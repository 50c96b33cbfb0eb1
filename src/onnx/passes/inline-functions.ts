/** Calls of model-local functions are replaced by the nodes of the function. */
import { create } from '@bufbuild/protobuf';
import {
  ModelProtoSchema,
  type AttributeProto,
  type FunctionProto,
  type GraphProto,
  type ModelProto,
  type NodeProto,
} from 'onnx-buf';
import { FlowCompressError } from '../../errors.js';
import { Graph, type Node, type Value } from '../graph.js';
import { withFields, withoutFields } from '../message.js';
import { subgraphsOf } from '../walk.js';

/**
 * Replaces every call, in subgraphs and in the functions themselves too, and drops the functions. Values and nodes of a body
 * are named after the call. Runs in place; when it throws, the graph must be discarded.
 * @returns how many calls were replaced
 * @throws FlowCompressError `unsupported` where a function is written for another version of an operator set than the model;
 *   `bad-input` for a function that calls itself
 */
export function inlineFunctions(graph: Graph): number {
  if (graph.functions.length === 0) return 0;
  const library = new Library(graph);
  const replaced = inlineCalls(graph, library);
  graph.functions.splice(0);
  return replaced;
}

/** The functions of a model, by what calls them. */
class Library {
  private readonly byKey = new Map<string, FunctionProto>();
  private readonly sorted = new Map<FunctionProto, readonly NodeProto[]>();

  constructor(private readonly model: Graph) {
    for (const fn of model.functions) this.byKey.set(functionKey(fn.domain, fn.name, fn.overload), fn);
  }

  functionOf(node: NodeProto): FunctionProto | undefined {
    return this.byKey.get(functionKey(node.domain, node.opType, node.overload));
  }

  /** Nodes of a function, producers before consumers; the operator sets that they need are imported by the model. */
  bodyOf(fn: FunctionProto): readonly NodeProto[] {
    let nodes = this.sorted.get(fn);
    if (!nodes) {
      this.importOpsets(fn, fn.node);
      nodes = new Graph(create(ModelProtoSchema, { graph: { node: fn.node } })).nodes.map((node) => node.proto);
      this.sorted.set(fn, nodes);
    }
    return nodes;
  }

  private importOpsets(fn: FunctionProto, nodes: readonly NodeProto[]): void {
    for (const node of nodes) {
      for (const body of subgraphsOf(node)) this.importOpsets(fn, body.node);
      if (this.functionOf(node)) continue;
      const domain = domainOf(node.domain);
      const wanted = Number(fn.opsetImport.find((entry) => domainOf(entry.domain) === domain)?.version ?? 0);
      const imported = this.model.opset(domain);
      if (imported === 0) this.model.requireOpset(wanted, domain);
      else if (imported !== wanted)
        throw new FlowCompressError(
          'unsupported',
          `The function ${fn.name} is written for version ${String(wanted)} of ${domain || 'ai.onnx'}, the model for ${String(imported)}.`,
          { node: fn.name, hint: 'Export the model again with one version of every operator set.' },
        );
    }
  }
}

function domainOf(domain: string): string {
  return domain === 'ai.onnx' ? '' : domain;
}

function functionKey(domain: string, name: string, overload: string): string {
  return JSON.stringify([domainOf(domain), name, overload]);
}

function inlineCalls(graph: Graph, library: Library): number {
  let replaced = 0;
  // ONNX Runtime refuses two nodes of the same name.
  const nodeNames = new Set(graph.nodes.map((node) => node.name));
  const visit = (node: Node, proto: NodeProto, callers: readonly FunctionProto[]): void => {
    const fn = library.functionOf(proto);
    if (!fn) {
      replaced += inlineInBodies(graph, node, library);
      return;
    }
    if (callers.includes(fn))
      throw new FlowCompressError('bad-input', `The function ${fn.name} calls itself.`, {
        node: fn.name,
        hint: 'ONNX functions cannot be recursive: export the model again.',
      });
    const inner = library.bodyOf(fn);
    replaced++;
    expand(graph, node, fn, inner).forEach((inserted, i) => {
      if (inserted.name !== '') {
        while (nodeNames.has(inserted.name)) inserted.name += '_';
        nodeNames.add(inserted.name);
      }
      visit(inserted, inner[i]!, [...callers, fn]);
    });
  };
  for (const node of graph.nodes) visit(node, node.proto, []);
  return replaced;
}

/** Subgraphs are edited as graphs of their own that may not take a name in use around them. */
function inlineInBodies(graph: Graph, node: Node, library: Library): number {
  let replaced = 0;
  const inline = (body: GraphProto): GraphProto => {
    const inner = new Graph(create(ModelProtoSchema, { graph: body } satisfies Partial<ModelProto>));
    inner.reserveNames(graph.usedNames());
    const calls = inlineCalls(inner, library);
    if (calls === 0) return body;
    replaced += calls;
    graph.reserveNames(inner.usedNames());
    return inner.toModel().graph!;
  };
  for (const attribute of [...node.attributes.values()]) {
    if (!attribute.g && attribute.graphs.length === 0) continue;
    const graphs: Partial<AttributeProto> = { graphs: attribute.graphs.map(inline) };
    if (attribute.g) graphs.g = inline(attribute.g);
    graph.setAttribute(node, withFields(attribute, graphs));
  }
  return replaced;
}

/** Puts the nodes of a function in the place of a call. @returns them, in the order of `body` */
function expand(graph: Graph, call: Node, fn: FunctionProto, body: readonly NodeProto[]): Node[] {
  const { label } = call;
  const scope = new Map<string, Value | undefined>(fn.input.map((name, i) => [name, call.inputs[i]]));
  const attributes = new Map(fn.attributeProto.map((attribute) => [attribute.name, attribute]));
  for (const [name, attribute] of call.attributes) attributes.set(name, attribute);
  const results = new Map<string, Value>();
  const copies: [string, Value][] = [];
  call.outputs.forEach((value, i) => {
    const name = fn.output[i];
    if (!value || name === undefined) return;
    graph.detach(value);
    // An input handed through, or one value under two names.
    if (scope.has(name) || results.has(name)) copies.push([name, value]);
    else results.set(name, value);
  });
  graph.remove(call);
  const read = (name: string): Value | undefined => {
    if (name === '' || scope.has(name)) return scope.get(name);
    throw new FlowCompressError('bad-input', `The function ${fn.name} reads '${name}', which nothing in it makes.`, {
      node: fn.name,
      hint: 'The file is damaged or was written wrongly; export the model again.',
    });
  };
  const inserted = body.map((proto) => {
    const taken = new Set<string>();
    const node = graph.insert({
      opType: proto.opType,
      domain: domainOf(proto.domain),
      name: proto.name && `${label}/${proto.name}`,
      inputs: withoutEmptyEnd(proto.input.map(read), undefined),
      outputs: withoutEmptyEnd(proto.output, '').map((name, i) => {
        const result = results.get(name);
        return result ?? freshName(graph, `${label}/${name || `${proto.opType}_${String(i)}`}`, taken);
      }),
      attributes: bound(proto.attribute, { graph, label, attributes, names: namesOf(scope) }),
    });
    node.docString = proto.docString;
    node.metadataProps = proto.metadataProps;
    proto.output.forEach((name, i) => {
      if (name !== '') scope.set(name, node.outputs[i]);
    });
    return node;
  });
  for (const [name, value] of copies) graph.insert({ opType: 'Identity', inputs: [read(name)], outputs: [value] });
  return inserted;
}

function withoutEmptyEnd<T>(list: readonly T[], empty: T): T[] {
  return list.slice(0, list.findLastIndex((item) => item !== empty) + 1);
}

/** A free name that is not among those `taken` either, to which it is added. */
function freshName(graph: Graph, base: string, taken: Set<string>): string {
  let name = graph.uniqueName(base);
  while (taken.has(name)) name = graph.uniqueName(`${name}_`);
  taken.add(name);
  return name;
}

/** What a body is read with: values of the caller under their names in the function, and the attributes of the call. */
interface Binding {
  readonly graph: Graph;
  readonly label: string;
  readonly attributes: ReadonlyMap<string, AttributeProto>;
  /** By name in the function, the name in the graph; empty for an optional input that the call leaves out. */
  readonly names: ReadonlyMap<string, string>;
}

function namesOf(scope: ReadonlyMap<string, Value | undefined>): Map<string, string> {
  return new Map([...scope].map(([name, value]) => [name, value?.name ?? '']));
}

/** The attributes of a node with references to those of the call resolved; one that the call leaves out is absent. */
function bound(attributes: readonly AttributeProto[], binding: Binding): AttributeProto[] {
  return attributes.flatMap((attribute) => {
    if (attribute.refAttrName !== '') {
      const given = binding.attributes.get(attribute.refAttrName);
      return given ? [withoutFields(withFields(given, { name: attribute.name }), 'refAttrName')] : [];
    }
    if (!attribute.g && attribute.graphs.length === 0) return [attribute];
    const graphs: Partial<AttributeProto> = { graphs: attribute.graphs.map((body) => boundGraph(body, binding)) };
    if (attribute.g) graphs.g = boundGraph(attribute.g, binding);
    return [withFields(attribute, graphs)];
  });
}

/** A subgraph under names of the graph: what it reads from around it is renamed, and what it makes itself is made unique. */
function boundGraph(body: GraphProto, binding: Binding): GraphProto {
  const { graph, label } = binding;
  const names = new Map(binding.names);
  const own = [
    ...body.input.map((info) => info.name),
    ...body.initializer.map((tensor) => tensor.name),
    ...body.sparseInitializer.map((sparse) => sparse.values?.name ?? ''),
    ...body.node.flatMap((node) => node.output),
  ];
  for (const name of new Set(own)) {
    if (name === '') continue;
    const fresh = graph.uniqueName(`${label}/${name}`);
    graph.reserveNames([fresh]);
    names.set(name, fresh);
  }
  const inside = { ...binding, names };
  const renamed = (name: string): string => names.get(name) ?? name;
  const rename = <T extends { name: string }>(item: T): T =>
    withFields(item, { name: renamed(item.name) } as Partial<T>);
  return withFields(body, {
    input: body.input.map(rename),
    output: body.output.map(rename),
    valueInfo: body.valueInfo.map(rename),
    initializer: body.initializer.map(rename),
    sparseInitializer: body.sparseInitializer.map((sparse) =>
      sparse.values ? withFields(sparse, { values: rename(sparse.values) }) : sparse,
    ),
    node: body.node.map((node) =>
      withFields(node, {
        input: node.input.map(renamed),
        output: node.output.map(renamed),
        attribute: bound(node.attribute, inside),
      }),
    ),
  });
}
