/** Checks that a model is a well-formed graph, so that everything after can rely on it. */
import type { FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto } from 'onnx-buf';
import { FlowCompressError } from '../errors.js';
import { elementCount, checkTensor } from './tensor.js';
import { nodeLabel, subgraphsOf, visitTensors } from './walk.js';

/** Opsets of the default domain that are handled. */
export const SUPPORTED_OPSETS = { min: 7, max: 27 } as const;

/** Subgraphs within subgraphs; deeper ones cannot be decoded from a file anyway. */
const MAX_NESTING = 50;

export interface ValidateOptions {
  /** Refuse nodes that come before the producer of one of their inputs. By default any order without a cycle is accepted. */
  requireSorted?: boolean;
}

function refuse(message: string, node: string | undefined, hint: string): FlowCompressError {
  return new FlowCompressError('bad-input', message, { node: node === '' ? undefined : node, hint });
}

const REEXPORT = 'The file is damaged or was edited wrongly; export the model again.';

function domainOf(domain: string): string {
  return domain === 'ai.onnx' ? '' : domain;
}

function domainName(domain: string): string {
  return domain === '' ? 'the default domain' : `domain "${domain}"`;
}

/** Domains with an opset import. */
function checkOpsets(imports: readonly OperatorSetIdProto[], owner: string): Set<string> {
  const domains = new Set<string>();
  for (const { domain: written, version } of imports) {
    const domain = domainOf(written);
    if (domains.has(domain)) throw refuse(`${owner} imports ${domainName(domain)} twice.`, undefined, REEXPORT);
    domains.add(domain);
    if (domain !== '') continue;
    const { min, max } = SUPPORTED_OPSETS;
    if (version < min || version > max) {
      throw refuse(
        `${owner} uses opset ${version}; opsets ${min} to ${max} are handled.`,
        undefined,
        version > max
          ? `Export the model with opset ${max} or lower, or update Flow Compress.`
          : 'Convert it with onnx.version_converter, or export it again with opset 13 or higher.',
      );
    }
  }
  return domains;
}

/** What a check of nodes needs to know about its surroundings. */
interface Scope {
  readonly owner: string;
  readonly domains: ReadonlySet<string>;
  readonly requireSorted: boolean;
}

/** Names that a graph takes from outside, each with the node that reads it. */
type Captures = Map<string, string>;

function define(names: Set<string>, name: string, what: string, where: string): void {
  if (names.has(name)) {
    throw refuse(`The value "${name}" is defined more than once in ${where} (again as ${what}).`, name, REEXPORT);
  }
  names.add(name);
}

interface Body {
  readonly nodes: readonly NodeProto[];
  /** Names that exist before the first node. */
  readonly given: Set<string>;
  readonly outputs: readonly string[];
}

/** The nodes that wait for one another, in order along one cycle. */
function findCycle(nodes: readonly NodeProto[], needs: readonly (readonly number[])[], done: Uint8Array): string[] {
  const seenAt = new Map<number, number>();
  const path: number[] = [];
  let at = done.indexOf(0);
  while (!seenAt.has(at)) {
    seenAt.set(at, path.length);
    path.push(at);
    // A node that is not done waits for at least one other that is not.
    at = needs[at].find((producer) => done[producer] === 0) ?? at;
  }
  return path
    .slice(seenAt.get(at))
    .reverse()
    .map((i) => nodeLabel(nodes[i]));
}

function checkOrder(body: Body, needs: readonly (readonly number[])[], scope: Scope): void {
  const { nodes } = body;
  if (needs.every((producers, i) => producers.every((producer) => producer < i))) return;
  const missing = Int32Array.from(needs, (producers) => producers.length);
  const users: number[][] = nodes.map(() => []);
  needs.forEach((producers, i) => {
    for (const producer of producers) users[producer].push(i);
  });
  const done = new Uint8Array(nodes.length);
  const ready: number[] = [];
  missing.forEach((count, i) => {
    if (count === 0) ready.push(i);
  });
  let finished = 0;
  for (let at = ready.pop(); at !== undefined; at = ready.pop()) {
    done[at] = 1;
    finished++;
    for (const user of users[at]) if (--missing[user] === 0) ready.push(user);
  }
  if (finished < nodes.length) {
    const cycle = findCycle(nodes, needs, done);
    const shown = cycle.length > 10 ? [...cycle.slice(0, 9), `... (${cycle.length} nodes)`] : cycle;
    throw refuse(`The nodes of ${scope.owner} form a cycle: ${[...shown, cycle[0]].join(' -> ')}.`, cycle[0], REEXPORT);
  }
  if (!scope.requireSorted) return;
  const early = needs.findIndex((producers, i) => producers.some((producer) => producer >= i));
  const late = needs[early].find((producer) => producer >= early) ?? early;
  throw refuse(
    `Node "${nodeLabel(nodes[early])}" of ${scope.owner} comes before "${nodeLabel(nodes[late])}", whose output it reads.`,
    nodeLabel(nodes[early]),
    'Sort the nodes topologically; the order is the only thing wrong.',
  );
}

/** Checks the nodes of a graph or function and returns what they take from outside. */
function checkBody(body: Body, scope: Scope, depth: number): Captures {
  const { nodes, given } = body;
  const names = new Set(given);
  const producer = new Map<string, number>();
  nodes.forEach((node, i) => {
    const label = nodeLabel(node);
    if (node.opType === '') throw refuse(`Node "${label}" of ${scope.owner} has no operator type.`, label, REEXPORT);
    const domain = domainOf(node.domain);
    if (!scope.domains.has(domain)) {
      throw refuse(
        `Node "${label}" uses ${node.opType} of ${domainName(domain)}, for which ${scope.owner} has no opset import.`,
        label,
        'Export the model again; every domain in use needs an opset import.',
      );
    }
    for (const output of node.output) {
      if (output === '') continue;
      define(names, output, `an output of node "${label}"`, scope.owner);
      producer.set(output, i);
    }
  });
  const captures: Captures = new Map();
  const needs = nodes.map((node) => {
    const producers = new Set<number>();
    const need = (name: string, reader: string): void => {
      const from = producer.get(name);
      if (from !== undefined) producers.add(from);
      else if (!given.has(name) && !captures.has(name)) captures.set(name, reader);
    };
    const label = nodeLabel(node);
    for (const input of node.input) if (input !== '') need(input, label);
    for (const graph of subgraphsOf(node)) {
      const inner = checkGraph(graph, { ...scope, owner: `subgraph "${graph.name}" of node "${label}"` }, depth + 1);
      for (const [name, reader] of inner) need(name, reader);
    }
    return [...producers];
  });
  checkOrder(body, needs, scope);
  for (const output of body.outputs) {
    if (names.has(output) || captures.has(output)) continue;
    if (depth > 0) captures.set(output, `output "${output}" of ${scope.owner}`);
    else throw refuse(`Output "${output}" of ${scope.owner} is not produced by any node.`, output, REEXPORT);
  }
  return captures;
}

function checkGraph(graph: GraphProto, scope: Scope, depth: number): Captures {
  if (depth > MAX_NESTING) throw refuse(`Subgraphs are nested more than ${MAX_NESTING} deep.`, graph.name, REEXPORT);
  const given = new Set<string>();
  for (const input of graph.input) {
    if (input.name === '') throw refuse(`An input of ${scope.owner} has no name.`, undefined, REEXPORT);
    define(given, input.name, 'a graph input', scope.owner);
  }
  const stored = new Set<string>();
  const addInitializer = (name: string): void => {
    if (name === '') throw refuse(`An initializer of ${scope.owner} has no name.`, undefined, REEXPORT);
    define(stored, name, 'an initializer', scope.owner);
    // An initializer of the same name as an input is the default value of that input.
    given.add(name);
  };
  for (const tensor of graph.initializer) addInitializer(tensor.name);
  for (const sparse of graph.sparseInitializer) {
    addInitializer(sparse.values?.name ?? '');
    elementCount(sparse.dims, sparse.values?.name);
  }
  const outputs = graph.output.map((output) => output.name);
  return checkBody({ nodes: graph.node, given, outputs }, scope, depth);
}

function unresolved(captures: Captures, owner: string): void {
  for (const [name, reader] of captures) {
    throw refuse(
      `Node "${reader}" reads "${name}", which no node of ${owner} produces and which is neither an input nor an initializer.`,
      reader,
      REEXPORT,
    );
  }
}

function functionKey(domain: string, name: string, overload: string): string {
  return JSON.stringify([domainOf(domain), name, overload]);
}

function functionLabel(fn: FunctionProto): string {
  return `function "${fn.domain === '' ? '' : `${fn.domain}::`}${fn.name}${fn.overload === '' ? '' : `:${fn.overload}`}"`;
}

function checkFunction(fn: FunctionProto, requireSorted: boolean): void {
  const owner = functionLabel(fn);
  const given = new Set<string>();
  for (const input of fn.input) define(given, input, 'a function input', owner);
  const scope = { owner, domains: checkOpsets(fn.opsetImport, owner), requireSorted };
  unresolved(checkBody({ nodes: fn.node, given, outputs: fn.output }, scope, 0), owner);
}

/** Keys of every operator that the nodes call, subgraphs included. */
function calledKeys(fn: FunctionProto): Set<string> {
  const keys = new Set<string>();
  const pending: (readonly NodeProto[])[] = [fn.node];
  for (let nodes = pending.pop(); nodes; nodes = pending.pop()) {
    for (const node of nodes) {
      keys.add(functionKey(node.domain, node.opType, node.overload));
      for (const graph of subgraphsOf(node)) pending.push(graph.node);
    }
  }
  return keys;
}

function checkFunctionCalls(functions: readonly FunctionProto[]): void {
  const index = new Map<string, number>();
  functions.forEach((fn, i) => {
    const key = functionKey(fn.domain, fn.name, fn.overload);
    if (index.has(key)) throw refuse(`The ${functionLabel(fn)} is defined twice.`, fn.name, REEXPORT);
    index.set(key, i);
  });
  const calls = functions.map((fn) => [...calledKeys(fn)].flatMap((key) => index.get(key) ?? []));
  const state = new Uint8Array(functions.length); // 1 = on the current path, 2 = done
  for (let root = 0; root < functions.length; root++) {
    if (state[root] !== 0) continue;
    state[root] = 1;
    const stack = [{ at: root, next: 0 }];
    while (stack.length > 0) {
      const top = stack[stack.length - 1];
      if (top.next === calls[top.at].length) {
        state[top.at] = 2;
        stack.pop();
        continue;
      }
      const callee = calls[top.at][top.next++];
      if (state[callee] === 1) {
        const from = stack.findIndex(({ at }) => at === callee);
        const names = [...stack.slice(from).map(({ at }) => at), callee].map((i) => functions[i].name);
        throw refuse(`Functions call each other in a cycle: ${names.join(' -> ')}.`, functions[callee].name, REEXPORT);
      }
      if (state[callee] === 0) {
        state[callee] = 1;
        stack.push({ at: callee, next: 0 });
      }
    }
  }
}

/**
 * Checks names, order, opsets, tensors and functions of a model in linear time. It does not check operators: their
 * inputs, attributes and shapes.
 * @throws FlowCompressError `bad-input` naming the node, value or tensor; `unsupported` for segmented tensors.
 */
export function validateModel(model: ModelProto, options: ValidateOptions = {}): void {
  const { requireSorted = false } = options;
  const { graph } = model;
  if (!graph) throw refuse('The model has no graph.', undefined, REEXPORT);
  if (model.opsetImport.length === 0) {
    throw refuse(
      'The model has no opset import.',
      undefined,
      'The file is cut off or damaged; download or export it again.',
    );
  }
  const domains = checkOpsets(model.opsetImport, 'The model');
  visitTensors(model, (tensor, place) => {
    try {
      checkTensor(tensor);
    } catch (error) {
      if (tensor.name !== '' || !(error instanceof FlowCompressError)) throw error;
      throw new FlowCompressError(error.code, `${error.message.replace(/\.$/, '')}, in "${place.owner}".`, {
        node: place.owner,
        hint: error.hint,
      });
    }
  });
  checkFunctionCalls(model.functions);
  for (const fn of model.functions) checkFunction(fn, requireSorted);
  if (graph.output.length === 0) throw refuse('The model has no outputs.', undefined, REEXPORT);
  unresolved(checkGraph(graph, { owner: 'the graph', domains, requireSorted }, 0), 'the graph');
}
