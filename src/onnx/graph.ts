/**
 * The editable view of a model: nodes and values that know their producer and their uses. A `Graph` is opened on a
 * ModelProto, changed, and turned into a new ModelProto; tensors and attributes are shared, the original stays as it was.
 */
import { create } from '@bufbuild/protobuf';
import {
  GraphProtoSchema,
  ModelProtoSchema,
  NodeProtoSchema,
  OperatorSetIdProtoSchema,
  type AttributeProto,
  type FunctionProto,
  type GraphProto,
  type ModelProto,
  type NodeProto,
  type SparseTensorProto,
  type TensorProto,
  type ValueInfoProto,
} from 'onnx-buf';
import { FlowCompressError } from '../errors.js';
import { withFields, withoutFields } from './message.js';
import { subgraphsOf } from './walk.js';

/** One place where a node reads a value. `index` is the input position, or -1 when a subgraph of the node captures it. */
export interface Use {
  readonly node: Node;
  readonly index: number;
}

/** A named tensor of the graph: a graph input, an initializer or the output of one node. */
export class Value {
  /** Node that computes the value; undefined for graph inputs and initializers. */
  producer: Node | undefined;
  /** Position among the producer's outputs. */
  outputIndex = 0;
  /** Every place that reads the value, in no particular order; graph outputs are not uses. */
  readonly uses = new Set<Use>();
  initializer: TensorProto | undefined;
  sparseInitializer: SparseTensorProto | undefined;
  /** Declared type and shape, if the file carries one. */
  info: ValueInfoProto | undefined;

  constructor(public name: string) {}

  /** True when the value is stored in the file. */
  get isInitializer(): boolean {
    return this.initializer !== undefined || this.sparseInitializer !== undefined;
  }
}

/** An operator call. Change its inputs and outputs through the Graph so that uses stay right. */
export class Node {
  name: string;
  opType: string;
  domain: string;
  docString: string;
  metadataProps: NodeProto['metadataProps'];
  readonly inputs: (Value | undefined)[] = [];
  readonly outputs: (Value | undefined)[] = [];
  readonly attributes = new Map<string, AttributeProto>();
  /** Uses aligned with `inputs`, then those of captured values. @internal */
  readonly useRecords: (Use | undefined)[] = [];
  /** @internal */
  readonly captures: { value: Value; use: Use }[] = [];

  constructor(readonly proto: NodeProto) {
    this.name = proto.name;
    this.opType = proto.opType;
    this.docString = proto.docString;
    this.metadataProps = proto.metadataProps;
    this.domain = proto.domain === 'ai.onnx' ? '' : proto.domain;
    for (const attribute of proto.attribute) this.attributes.set(attribute.name, attribute);
  }

  /** Name for messages: the node's own, or that of its first output. */
  get label(): string {
    return this.name || (this.outputs.find((v) => v)?.name ?? this.opType);
  }

  is(opType: string, domain = ''): boolean {
    return this.opType === opType && this.domain === domain;
  }

  int(name: string, fallback: number): number;
  int(name: string): number | undefined;
  int(name: string, fallback?: number): number | undefined {
    const attribute = this.attributes.get(name);
    return attribute ? Number(attribute.i) : fallback;
  }

  ints(name: string): number[] | undefined {
    return this.attributes.get(name)?.ints.map(Number);
  }

  float(name: string, fallback: number): number {
    return this.attributes.get(name)?.f ?? fallback;
  }

  string(name: string, fallback: string): string {
    const attribute = this.attributes.get(name);
    return attribute ? new TextDecoder().decode(attribute.s) : fallback;
  }

  tensor(name: string): TensorProto | undefined {
    return this.attributes.get(name)?.t;
  }
}

/** What `Graph.insert` needs to make a node. Empty optional inputs are given as undefined. */
export interface NodeSpec {
  opType: string;
  domain?: string;
  name?: string;
  inputs: (Value | undefined)[];
  /** Names of new values, or existing values that have no producer. */
  outputs: (string | Value)[];
  attributes?: AttributeProto[];
}

export class Graph {
  readonly inputs: Value[] = [];
  readonly outputs: Value[] = [];
  readonly functions: FunctionProto[];
  irVersion: number;
  private readonly nodeSet = new Set<Node>();
  private readonly valueByName = new Map<string, Value>();
  private readonly opsets = new Map<string, number>();
  /** Names bound inside subgraphs, and names of a graph around this one: a value of the same name would be shadowed. */
  private readonly reserved = new Set<string>();
  private nameCounter = 0;

  /**
   * Opens a model for editing in time linear in its nodes. Nothing of the model is copied but its structure.
   * @throws FlowCompressError `bad-input` when a value has two producers.
   */
  constructor(private model: ModelProto) {
    const graph = requireGraph(model);
    this.functions = [...model.functions];
    this.irVersion = Number(model.irVersion);
    for (const entry of model.opsetImport) {
      this.opsets.set(entry.domain === 'ai.onnx' ? '' : entry.domain, Number(entry.version));
    }
    for (const info of graph.input) {
      const value = this.valueFor(info.name);
      value.info = info;
      this.inputs.push(value);
    }
    for (const tensor of graph.initializer) this.valueFor(tensor.name).initializer = tensor;
    for (const sparse of graph.sparseInitializer) {
      this.valueFor(sparse.values?.name ?? '').sparseInitializer = sparse;
    }
    for (const proto of graph.node) this.attach(new Node(proto), proto.input, proto.output);
    for (const info of graph.valueInfo) {
      const value = this.valueByName.get(info.name);
      if (value) value.info = info;
    }
    for (const info of graph.output) {
      const value = this.valueFor(info.name);
      value.info = info;
      this.outputs.push(value);
    }
  }

  /** All nodes, producers before consumers; nodes that were in a valid order keep it. */
  get nodes(): Node[] {
    return this.topologicalOrder();
  }

  get nodeCount(): number {
    return this.nodeSet.size;
  }

  values(): Iterable<Value> {
    return this.valueByName.values();
  }

  /** Version of an operator set, 0 when the model does not import it. */
  opset(domain = ''): number {
    return this.opsets.get(domain) ?? 0;
  }

  /** Imports an operator set, or raises its version; a version is never lowered. */
  requireOpset(version: number, domain = ''): void {
    if (this.opset(domain) < version) this.opsets.set(domain, version);
  }

  value(name: string): Value | undefined {
    return this.valueByName.get(name);
  }

  /** The value named `name`. @throws FlowCompressError `bad-input` when the graph has none. */
  mustGet(name: string): Value {
    const value = this.valueByName.get(name);
    if (!value) throw new FlowCompressError('bad-input', `The graph has no value named '${name}'.`);
    return value;
  }

  isGraphOutput(value: Value): boolean {
    return this.outputs.includes(value);
  }

  /** A graph input that the caller must feed (older files list their initializers among the inputs). */
  isFed(value: Value): boolean {
    return !value.isInitializer && this.inputs.includes(value);
  }

  /** Tensor of a value known before the run: an initializer or the output of a Constant node. */
  constant(value: Value | undefined): TensorProto | undefined {
    if (!value) return undefined;
    if (value.initializer) return value.initializer;
    return value.producer?.is('Constant') ? value.producer.tensor('value') : undefined;
  }

  /** True when no value of the graph, of its subgraphs or of a graph around it bears the name. */
  isFreeName(name: string): boolean {
    return name !== '' && !this.valueByName.has(name) && !this.reserved.has(name);
  }

  /** A name not yet used by any value. */
  uniqueName(base: string): string {
    if (this.isFreeName(base)) return base;
    for (;;) {
      const name = `${base}_${String(++this.nameCounter)}`;
      if (this.isFreeName(name)) return name;
    }
  }

  /** Keeps names from being given to new values, for a body that is edited as a graph of its own. */
  reserveNames(names: Iterable<string>): void {
    for (const name of names) this.reserved.add(name);
  }

  /** Every name in use here, in subgraphs and in a graph around this one. */
  *usedNames(): Iterable<string> {
    yield* this.valueByName.keys();
    yield* this.reserved;
  }

  /** Adds a tensor to the file under its own name, which must be free. */
  addInitializer(tensor: TensorProto): Value {
    if (!this.isFreeName(tensor.name)) {
      throw new FlowCompressError('internal', `The graph already has a value named '${tensor.name}'.`);
    }
    const value = this.valueFor(tensor.name);
    value.initializer = tensor;
    return value;
  }

  /** Replaces the tensor of an initializer; its declared shape is dropped, and an input of the same name is withdrawn. */
  setInitializer(value: Value, tensor: TensorProto): void {
    if (value.producer) {
      throw new FlowCompressError('internal', `'${value.name}' is computed, it cannot become an initializer.`);
    }
    value.initializer = tensor.name === value.name ? tensor : withFields(tensor, { name: value.name });
    value.sparseInitializer = undefined;
    if (!this.isGraphOutput(value)) value.info = undefined;
    this.withdrawInput(value);
  }

  /** Adds an input that the caller feeds, with the declared type and shape of `info`, under its name or a free one like it. */
  addInput(info: ValueInfoProto): Value {
    const value = this.newValue(this.uniqueName(info.name));
    this.feed(value, info);
    return value;
  }

  /** Adds an output to a node that did not give it: an optional one behind those that it has. */
  addOutput(node: Node, index: number, name: string): Value {
    const value = this.newValue(this.uniqueName(name));
    while (node.outputs.length < index) node.outputs.push(undefined);
    value.producer = node;
    value.outputIndex = index;
    node.outputs[index] = value;
    return value;
  }

  /** Turns a computed value into an input that the caller feeds, with the declared type and shape of `info`. */
  feed(value: Value, info: ValueInfoProto): void {
    if (value.producer) this.detach(value);
    value.initializer = undefined;
    value.info = withFields(info, { name: value.name });
    if (!this.inputs.includes(value)) this.inputs.push(value);
  }

  /** Drops inputs that nothing reads. */
  dropUnreadInputs(): void {
    const unread = this.inputs.filter((v) => v.uses.size === 0 && !this.isGraphOutput(v));
    for (const value of unread) {
      this.inputs.splice(this.inputs.indexOf(value), 1);
      if (!value.isInitializer) this.valueByName.delete(value.name);
    }
  }

  /** Takes a value out of the list of graph inputs (initializers listed as inputs cannot be folded by engines). */
  withdrawInput(value: Value): void {
    const at = this.inputs.indexOf(value);
    if (at < 0) return;
    this.inputs.splice(at, 1);
    if (this.irVersion < 4) this.irVersion = 4;
  }

  /** Adds a node; new values are made for output names. */
  insert(spec: NodeSpec): Node {
    const proto = create(NodeProtoSchema, {
      name: spec.name ?? '',
      opType: spec.opType,
      domain: spec.domain ?? '',
      attribute: spec.attributes ?? [],
    });
    const node = new Node(proto);
    const outputs = spec.outputs.map((output) => {
      const value = typeof output === 'string' ? this.newValue(output) : output;
      if (value.producer) {
        throw new FlowCompressError('internal', `'${value.name}' already has a producer.`, { node: spec.name });
      }
      return value;
    });
    this.nodeSet.add(node);
    spec.inputs.forEach((value, index) => {
      this.link(node, index, value);
    });
    this.linkCaptures(node);
    outputs.forEach((value, index) => {
      value.producer = node;
      value.outputIndex = index;
      node.outputs[index] = value;
    });
    return node;
  }

  /** Inserts a node with one output and returns that output. */
  insertOp(
    opType: string,
    inputs: (Value | undefined)[],
    attributes: AttributeProto[] = [],
    output?: string,
    domain = '',
  ): Value {
    // Derived names would grow with every step of a long chain.
    const name = output ?? this.uniqueName(`${(inputs.find((v) => v)?.name ?? '').slice(0, 40)}_${opType}`);
    const node = this.insert({ opType, domain, inputs, outputs: [name], attributes });
    return node.outputs[0]!;
  }

  /** Points one input of a node at another value (undefined leaves an optional input empty). */
  setInput(node: Node, index: number, value: Value | undefined): void {
    const old = node.useRecords[index];
    if (old) node.inputs[index]?.uses.delete(old);
    this.link(node, index, value);
    while (node.inputs.length > 0 && node.inputs[node.inputs.length - 1] === undefined) {
      node.inputs.pop();
      node.useRecords.pop();
    }
  }

  /** Sets an attribute; the values that a subgraph in it reads become uses of the node. */
  setAttribute(node: Node, attribute: AttributeProto): void {
    const old = node.attributes.get(attribute.name);
    node.attributes.set(attribute.name, attribute);
    if ((old && holdsGraphs(old)) || holdsGraphs(attribute)) this.linkCaptures(node);
  }

  /**
   * Makes every reader of `from` read `to`, subgraphs included. Graph outputs keep their public name: when `from` is
   * one, the producer of `to` takes the name over, and `to` is no longer a value of the graph afterwards; where that
   * producer cannot (an input, an initializer, another output), an Identity carries the name.
   */
  replaceUses(from: Value, to: Value): void {
    if (from === to) return;
    if (this.isGraphOutput(from) && this.inputs.includes(from)) {
      throw new FlowCompressError('internal', `'${from.name}' is both input and output of the model.`);
    }
    for (const use of [...from.uses]) {
      if (use.index >= 0) this.setInput(use.node, use.index, to);
      else this.renameCapture(use.node, from, to);
    }
    if (!this.isGraphOutput(from)) return;
    const producer = from.producer;
    const carrier = to.producer;
    if (!carrier || this.isGraphOutput(to)) {
      if (producer) this.detach(from);
      from.initializer = undefined;
      from.sparseInitializer = undefined;
      this.insert({ opType: 'Identity', inputs: [to], outputs: [from] });
      return;
    }
    if (producer) this.detach(from);
    from.initializer = undefined;
    from.sparseInitializer = undefined;
    // `from` is the public name: it becomes the output of the node that computed `to`.
    const index = to.outputIndex;
    carrier.outputs[index] = from;
    from.producer = carrier;
    from.outputIndex = index;
    to.producer = undefined;
    for (const use of [...to.uses]) {
      if (use.index >= 0) this.setInput(use.node, use.index, from);
      else this.renameCapture(use.node, to, from);
    }
    this.valueByName.delete(to.name);
  }

  /**
   * Frees a computed value of its producer, which goes on under a fresh value that is returned. The readers and the
   * public name stay with `value`, to which another node must be given: this puts an operator behind the producer.
   */
  detach(value: Value): Value {
    const node = value.producer;
    if (!node) throw new FlowCompressError('internal', `'${value.name}' is not computed.`);
    const spare = this.newValue(this.uniqueName(`${value.name}_raw`));
    spare.producer = node;
    spare.outputIndex = value.outputIndex;
    node.outputs[value.outputIndex] = spare;
    value.producer = undefined;
    return spare;
  }

  /** Gives a value another name; graph inputs and outputs keep theirs, since callers rely on them. */
  rename(value: Value, name: string): void {
    if (value.name === name) return;
    if (this.inputs.includes(value) || this.isGraphOutput(value)) {
      throw new FlowCompressError('internal', `'${value.name}' is part of the model's interface.`);
    }
    if (!this.isFreeName(name)) throw new FlowCompressError('internal', `The name '${name}' is taken.`);
    for (const use of value.uses) {
      if (use.index < 0) renameInSubgraphs(use.node, value.name, name);
    }
    this.valueByName.delete(value.name);
    value.name = name;
    this.valueByName.set(name, value);
    if (value.initializer) value.initializer = withFields(value.initializer, { name });
    if (value.sparseInitializer?.values) {
      const values = withFields(value.sparseInitializer.values, { name });
      value.sparseInitializer = withFields(value.sparseInitializer, { values });
    }
    if (value.info) value.info = withFields(value.info, { name });
  }

  /** Removes a node whose outputs nobody reads. @throws FlowCompressError `internal` if one is still read. */
  remove(node: Node): void {
    for (const output of node.outputs) {
      if (output && (output.uses.size > 0 || this.isGraphOutput(output))) {
        throw new FlowCompressError('internal', `'${output.name}' is still read.`, { node: node.label });
      }
    }
    node.inputs.forEach((value, index) => {
      const use = node.useRecords[index];
      if (use) value?.uses.delete(use);
    });
    for (const { value, use } of node.captures) value.uses.delete(use);
    for (const output of node.outputs) {
      if (output) this.valueByName.delete(output.name);
    }
    this.nodeSet.delete(node);
  }

  /** Drops nodes, initializers and functions that no graph output depends on. Returns how many nodes went. */
  removeDead(): number {
    const order = this.topologicalOrder();
    const outputs = new Set(this.outputs);
    let removed = 0;
    for (let i = order.length - 1; i >= 0; i--) {
      const node = order[i]!;
      if (node.outputs.some((v) => v && (v.uses.size > 0 || outputs.has(v)))) continue;
      this.remove(node);
      removed++;
    }
    for (const value of [...this.valueByName.values()]) {
      if (value.isInitializer && value.uses.size === 0 && !outputs.has(value)) {
        this.withdrawInput(value);
        this.valueByName.delete(value.name);
      }
    }
    this.removeUncalledFunctions();
    return removed;
  }

  private removeUncalledFunctions(): void {
    if (this.functions.length === 0) return;
    const called = new Set<string>();
    const visit = (nodes: Iterable<NodeProto>): void => {
      for (const node of nodes) {
        for (const graph of subgraphsOf(node)) visit(graph.node);
        const key = functionKey(node.domain, node.opType);
        if (called.has(key)) continue;
        called.add(key);
        for (const fn of this.functions) if (functionKey(fn.domain, fn.name) === key) visit(fn.node);
      }
    };
    visit([...this.nodeSet].map(toNodeProto));
    const live = this.functions.filter((fn) => called.has(functionKey(fn.domain, fn.name)));
    this.functions.splice(0, this.functions.length, ...live);
  }

  /**
   * Drops what engines do not read: doc strings, declared types of inner values, node names, per-node metadata, training
   * and quantization annotations. The metadata of the model stays.
   */
  dropAnnotations(): void {
    const graph = withFields(requireGraph(this.model), { quantizationAnnotation: [], metadataProps: [] });
    const model = withFields(this.model, { graph: withoutFields(graph, 'docString'), trainingInfo: [] });
    this.model = withoutFields(model, 'docString');
    const outputs = new Set(this.outputs);
    for (const value of this.valueByName.values()) {
      if (!outputs.has(value) && !this.inputs.includes(value)) value.info = undefined;
      if (value.initializer) {
        value.initializer = withoutFields(withFields(value.initializer, { metadataProps: [] }), 'docString');
      }
    }
    for (const node of this.nodeSet) {
      node.name = '';
      node.docString = '';
      node.metadataProps = [];
    }
  }

  /** The edited model as a new message; tensors and untouched messages are shared with the original. */
  toModel(): ModelProto {
    const graph = requireGraph(this.model);
    const initializer: TensorProto[] = [];
    const sparseInitializer: SparseTensorProto[] = [];
    const valueInfo: ValueInfoProto[] = [];
    const inputs = new Set(this.inputs);
    const outputs = new Set(this.outputs);
    for (const value of this.valueByName.values()) {
      if (value.initializer) initializer.push(value.initializer);
      if (value.sparseInitializer) sparseInitializer.push(value.sparseInitializer);
      if (value.info && !inputs.has(value) && !outputs.has(value)) valueInfo.push(value.info);
    }
    const result = withFields(graph, {
      node: this.topologicalOrder().map(toNodeProto),
      initializer,
      sparseInitializer,
      valueInfo,
      input: this.inputs.map((v) => v.info!),
      output: this.outputs.map((v) => v.info!),
    });
    return withFields(this.model, {
      irVersion: BigInt(this.irVersion),
      opsetImport: [...this.opsets].map(([domain, version]) =>
        create(OperatorSetIdProtoSchema, { domain, version: BigInt(version) }),
      ),
      functions: [...this.functions],
      graph: result,
    });
  }

  private newValue(name: string): Value {
    if (!this.isFreeName(name)) throw new FlowCompressError('internal', `The name '${name}' is taken.`);
    return this.valueFor(name);
  }

  private valueFor(name: string): Value {
    let value = this.valueByName.get(name);
    if (!value) {
      value = new Value(name);
      this.valueByName.set(name, value);
    }
    return value;
  }

  private attach(node: Node, inputs: readonly string[], outputs: readonly string[]): void {
    this.nodeSet.add(node);
    inputs.forEach((name, index) => {
      this.link(node, index, name === '' ? undefined : this.valueFor(name));
    });
    outputs.forEach((name, index) => {
      if (name === '') {
        node.outputs[index] = undefined;
        return;
      }
      const value = this.valueFor(name);
      if (value.producer) {
        throw new FlowCompressError('bad-input', `Value '${name}' is produced by two nodes.`, { node: node.label });
      }
      value.producer = node;
      value.outputIndex = index;
      node.outputs[index] = value;
    });
    this.linkCaptures(node);
  }

  /** Reads the free variables of the node's subgraphs anew. */
  private linkCaptures(node: Node): void {
    for (const { value, use } of node.captures.splice(0)) value.uses.delete(use);
    const free = new Set<string>();
    for (const attribute of node.attributes.values()) {
      if (attribute.g) collectFree(attribute.g, new Set(), free, this.reserved);
      for (const graph of attribute.graphs) collectFree(graph, new Set(), free, this.reserved);
    }
    for (const name of free) {
      const value = this.valueFor(name);
      const use: Use = { node, index: -1 };
      node.captures.push({ value, use });
      value.uses.add(use);
    }
  }

  private link(node: Node, index: number, value: Value | undefined): void {
    while (node.inputs.length < index) {
      node.inputs.push(undefined);
      node.useRecords.push(undefined);
    }
    node.inputs[index] = value;
    node.useRecords[index] = undefined;
    if (value) {
      const use: Use = { node, index };
      node.useRecords[index] = use;
      value.uses.add(use);
    }
  }

  private renameCapture(node: Node, from: Value, to: Value): void {
    const at = node.captures.findIndex((c) => c.value === from);
    if (at < 0) return;
    const [{ use }] = node.captures.splice(at, 1) as [{ value: Value; use: Use }];
    from.uses.delete(use);
    renameInSubgraphs(node, from.name, to.name);
    const fresh: Use = { node, index: -1 };
    node.captures.push({ value: to, use: fresh });
    to.uses.add(fresh);
  }

  private topologicalOrder(): Node[] {
    const order: Node[] = [];
    const state = new Map<Node, 'open' | 'done'>();
    for (const root of this.nodeSet) {
      if (state.has(root)) continue;
      const stack: { node: Node; next: number }[] = [{ node: root, next: 0 }];
      state.set(root, 'open');
      while (stack.length > 0) {
        const frame = stack[stack.length - 1]!;
        const { node } = frame;
        const count = node.inputs.length + node.captures.length;
        if (frame.next >= count) {
          state.set(node, 'done');
          order.push(node);
          stack.pop();
          continue;
        }
        const at = frame.next++;
        const value = at < node.inputs.length ? node.inputs[at] : node.captures[at - node.inputs.length]!.value;
        const producer = value?.producer;
        if (!producer) continue;
        const seen = state.get(producer);
        if (seen === 'open') {
          throw new FlowCompressError('bad-input', `The graph has a cycle through node '${producer.label}'.`, {
            node: producer.label,
            hint: 'ONNX graphs must be acyclic: export the model again.',
          });
        }
        if (seen === undefined) {
          state.set(producer, 'open');
          stack.push({ node: producer, next: 0 });
        }
      }
    }
    return order;
  }
}

/** The main graph of a model. @throws FlowCompressError `bad-input` when there is none. */
export function requireGraph(model: ModelProto): GraphProto {
  if (!model.graph) throw new FlowCompressError('bad-input', 'The model has no graph.');
  return model.graph;
}

/**
 * Runs an edit on a fresh Graph and returns the new model. An edit that throws leaves no trace: the input is never
 * changed, because the Graph is a structure of its own.
 */
export function rewrite(model: ModelProto, edit: (graph: Graph) => void): ModelProto {
  const graph = new Graph(model);
  edit(graph);
  return graph.toModel();
}

/** A model with an empty graph, to build on. `opset` is that of the default domain. */
export function emptyModel(opset: number, irVersion = 8): ModelProto {
  return create(ModelProtoSchema, {
    irVersion: BigInt(irVersion),
    producerName: 'flow-compress',
    opsetImport: [create(OperatorSetIdProtoSchema, { domain: '', version: BigInt(opset) })],
    graph: create(GraphProtoSchema, { name: 'graph' }),
  });
}

/** Adds to `free` the names that a subgraph reads from the graph around it, and to `names` those that it binds itself. */
function collectFree(graph: GraphProto, outer: ReadonlySet<string>, free: Set<string>, names: Set<string>): void {
  const bound = new Set(outer);
  for (const name of boundNames(graph)) {
    bound.add(name);
    names.add(name);
  }
  for (const node of graph.node) {
    for (const name of node.input) if (name !== '' && !bound.has(name)) free.add(name);
    for (const inner of subgraphsOf(node)) collectFree(inner, bound, free, names);
  }
  for (const info of graph.output) if (!bound.has(info.name)) free.add(info.name);
}

function* boundNames(graph: GraphProto): Iterable<string> {
  for (const info of graph.input) yield info.name;
  for (const tensor of graph.initializer) yield tensor.name;
  for (const sparse of graph.sparseInitializer) yield sparse.values?.name ?? '';
  for (const node of graph.node) yield* node.output;
}

function holdsGraphs(attribute: AttributeProto): boolean {
  return attribute.g !== undefined || attribute.graphs.length > 0;
}

function functionKey(domain: string, name: string): string {
  return JSON.stringify([domain === 'ai.onnx' ? '' : domain, name]);
}

function renameInSubgraphs(node: Node, from: string, to: string): void {
  for (const [key, attribute] of node.attributes) {
    if (holdsGraphs(attribute)) node.attributes.set(key, renamedAttribute(attribute, from, to));
  }
}

function renamedAttribute(attribute: AttributeProto, from: string, to: string): AttributeProto {
  if (!holdsGraphs(attribute)) return attribute;
  return withFields(attribute, {
    g: attribute.g && renamedGraph(attribute.g, from, to),
    graphs: attribute.graphs.map((graph) => renamedGraph(graph, from, to)),
  });
}

/** A copy in which the free variable `from` is `to`; the graph itself when it binds the name. Tensors are shared. */
function renamedGraph(graph: GraphProto, from: string, to: string): GraphProto {
  for (const name of boundNames(graph)) if (name === from) return graph;
  return withFields(graph, {
    node: graph.node.map((node) =>
      withFields(node, {
        input: node.input.map((name) => (name === from ? to : name)),
        attribute: node.attribute.map((attribute) => renamedAttribute(attribute, from, to)),
      }),
    ),
    output: graph.output.map((info) => (info.name === from ? withFields(info, { name: to }) : info)),
  });
}

function toNodeProto(node: Node): NodeProto {
  const proto = withFields(node.proto, {
    opType: node.opType,
    input: node.inputs.map((v) => v?.name ?? ''),
    output: node.outputs.map((v) => v?.name ?? ''),
    attribute: [...node.attributes.values()],
    metadataProps: node.metadataProps,
  });
  for (const field of ['name', 'domain', 'docString'] as const) {
    // An empty text that is set takes two bytes; one that is absent takes none.
    if (node[field] === '') Reflect.deleteProperty(proto, field);
    else proto[field] = node[field];
  }
  return proto;
}
