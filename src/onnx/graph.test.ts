import { clone, create, equals } from '@bufbuild/protobuf';
import fc from 'fast-check';
import {
  AttributeProto_AttributeType as Kind,
  AttributeProtoSchema,
  ModelProtoSchema,
  type AttributeProto,
  type ModelProto,
} from 'onnx-buf';
import { describe, expect, it } from 'vitest';
import { FlowCompressError } from '../errors.js';
import { exposeValue } from '../runtime/trace.js';
import { richModel } from '../testing/rich-model.js';
import { distance, info, op, opsOf, run, tensorFeed, tinyGraph, tinyModel, weights } from '../testing/graph-writing.js';
import { DataType } from './dtypes.js';
import { Graph, rewrite, type Use, type Value } from './graph.js';
import { validateModel } from './validate.js';

/** Uses and producers as they follow from the inputs, outputs and captures of the nodes: an oracle for the bookkeeping. */
function checkLinks(graph: Graph): void {
  const expected = new Map<Value, string[]>();
  const add = (value: Value, text: string): void => void expected.set(value, [...(expected.get(value) ?? []), text]);
  for (const node of graph.nodes) {
    node.inputs.forEach((value, index) => {
      if (value) add(value, `${node.label}:${String(index)}`);
    });
    for (const { value } of node.captures) add(value, `${node.label}:-1`);
    node.outputs.forEach((value, index) => {
      if (!value) return;
      expect(value.producer).toBe(node);
      expect(value.outputIndex).toBe(index);
      expect(graph.value(value.name)).toBe(value);
    });
  }
  const text = (use: Use): string => `${use.node.label}:${String(use.index)}`;
  for (const value of graph.values()) {
    expect([...value.uses].map(text).sort()).toEqual((expected.get(value) ?? []).sort());
    if (value.producer) expect(graph.nodes).toContain(value.producer);
  }
}

function branch(name: string, text: string): AttributeProto {
  const g = tinyGraph({ nodes: [op(`${text} -> ${name}_out`)], outputs: [info(`${name}_out`)] }, name);
  return create(AttributeProtoSchema, { name, type: Kind.GRAPH, g });
}

/** x -> a -> b; If reads a and b from its branches; y = z + b. */
function capturing(): ModelProto {
  return tinyModel({
    inputs: [info('x', [3]), info('flag', [], DataType.BOOL)],
    outputs: [info('y', [3])],
    nodes: [
      op('Relu x -> a', [], 'relu'),
      op('Mul a w -> b', [], 'mul'),
      op('If flag -> z', [branch('then_branch', 'Add a b'), branch('else_branch', 'Sub b w')], 'if'),
      op('Add z b -> y', [], 'add'),
    ],
    initializers: [weights('w', [3])],
  });
}

function flagged(flag: 0 | 1) {
  return { x: tensorFeed([3]), flag: { type: 'bool' as const, dims: [], data: Uint8Array.of(flag) } };
}

describe('Graph', () => {
  it('turns a model into an equal model', () => {
    for (const model of [richModel(), capturing()]) {
      expect(equals(ModelProtoSchema, new Graph(model).toModel(), model)).toBe(true);
      checkLinks(new Graph(model));
    }
  });

  it('leaves the input model as it was, whatever is edited', () => {
    const model = capturing();
    const copy = clone(ModelProtoSchema, model);
    rewrite(model, (graph) => {
      graph.rename(graph.mustGet('a'), 'renamed');
      graph.replaceUses(graph.mustGet('b'), graph.mustGet('renamed'));
      graph.setInitializer(graph.mustGet('w'), weights('other', [1]));
      graph.dropAnnotations();
      graph.removeDead();
      graph.requireOpset(20);
    });
    expect(equals(ModelProtoSchema, model, copy)).toBe(true);
    expect(() =>
      rewrite(model, (graph) => {
        graph.rename(graph.mustGet('a'), 'renamed');
        throw new Error('stop');
      }),
    ).toThrow('stop');
    expect(equals(ModelProtoSchema, model, copy)).toBe(true);
  });

  it('keeps uses and producers through insert, setInput, detach and remove', () => {
    const graph = new Graph(capturing());
    const [a, b] = [graph.mustGet('a'), graph.mustGet('b')];
    const c = graph.insertOp('Neg', [a], [], 'c');
    checkLinks(graph);
    const add = graph.mustGet('y').producer!;
    graph.setInput(add, 1, c);
    graph.setInput(add, 2, a);
    checkLinks(graph);
    graph.setInput(add, 2, undefined);
    expect(add.inputs).toHaveLength(2);
    checkLinks(graph);
    const raw = graph.detach(b);
    graph.insert({ opType: 'Relu', name: 'behind', inputs: [raw], outputs: [b] });
    checkLinks(graph);
    expect(() => {
      graph.remove(c.producer!);
    }).toThrow(FlowCompressError);
    graph.setInput(add, 1, b);
    graph.remove(c.producer!);
    expect(graph.value('c')).toBeUndefined();
    checkLinks(graph);
    validateModel(graph.toModel());
  });

  it('replaces uses and renames inside subgraphs', async () => {
    const model = capturing();
    const edited = rewrite(model, (graph) => {
      graph.rename(graph.mustGet('a'), 'fresh');
      graph.rename(graph.mustGet('w'), 'weight');
      const b = graph.mustGet('b');
      const twice = graph.insertOp('Identity', [b]);
      graph.replaceUses(b, twice);
      // replaceUses redirected the Identity too.
      graph.setInput(twice.producer!, 0, b);
      checkLinks(graph);
    });
    validateModel(edited);
    for (const flag of [0, 1] as const) {
      expect(distance(await run(model, flagged(flag)), await run(edited, flagged(flag)))).toBe(0);
    }
  });

  it('does not give out names that subgraphs bind', () => {
    const graph = new Graph(capturing());
    expect(graph.isFreeName('then_branch_out')).toBe(false);
    expect(graph.uniqueName('then_branch_out')).not.toBe('then_branch_out');
    expect(() => {
      graph.rename(graph.mustGet('a'), 'else_branch_out');
    }).toThrow(/taken/);
    expect(() => graph.addInitializer(weights('then_branch_out', [1]))).toThrow(/already/);
  });

  it('sees the captures of a subgraph that is inserted or set later', () => {
    const graph = new Graph(capturing());
    const node = graph.mustGet('z').producer!;
    graph.setAttribute(node, branch('then_branch', 'Neg x'));
    expect(node.captures.map((c) => c.value.name).sort()).toEqual(['b', 'w', 'x']);
    checkLinks(graph);
    graph.insert({
      opType: 'If',
      name: 'second',
      inputs: [graph.mustGet('flag')],
      outputs: ['late'],
      attributes: [branch('then_branch', 'Add x a'), branch('else_branch', 'Sub x a')],
    });
    checkLinks(graph);
    expect([...graph.mustGet('a').uses].map((use) => use.node.label)).toContain('second');
  });

  it('keeps the names of graph outputs, with an Identity where no node can take one over', async () => {
    const model = tinyModel({
      inputs: [info('x', [3])],
      outputs: [info('p'), info('q')],
      nodes: [op('Relu x -> p'), op('Abs x -> q')],
      initializers: [weights('w', [3])],
    });
    const redirect = (from: string, to: (graph: Graph) => Value): ModelProto =>
      rewrite(model, (graph) => {
        graph.replaceUses(graph.mustGet(from), to(graph));
        checkLinks(graph);
        graph.removeDead();
      });
    const taken = redirect('p', (graph) => graph.insertOp('Neg', [graph.mustGet('x')]));
    expect(opsOf(taken)).toEqual(['Abs', 'Neg']);
    expect(taken.graph!.node[1]!.output).toEqual(['p']);
    const feeds = { x: tensorFeed([3]) };
    for (const [to, pick] of [
      ['x', () => feeds.x.data],
      ['q', (r) => r.q!.data],
    ] as [string, (r: Awaited<ReturnType<typeof run>>) => unknown][]) {
      const edited = redirect('p', (graph) => graph.mustGet(to));
      validateModel(edited);
      const result = await run(edited, feeds);
      expect(result.p!.data).toEqual(pick(result));
    }
    expect(() => {
      new Graph(model).rename(new Graph(model).mustGet('nothing'), 'z');
    }).toThrow(/no value/);
    const graph = new Graph(model);
    expect(() => {
      graph.rename(graph.mustGet('p'), 'z');
    }).toThrow(/interface/);
  });

  it('refuses a cycle and two producers by name', () => {
    const cyclic = tinyModel({
      inputs: [info('x')],
      outputs: [info('y')],
      nodes: [op('Add x y -> a', [], 'first'), op('Relu a -> y', [], 'second')],
    });
    expect(() => new Graph(cyclic).nodes).toThrow(
      expect.objectContaining({ code: 'bad-input', node: expect.stringMatching(/first|second/) }),
    );
    const twice = tinyModel({
      inputs: [info('x')],
      outputs: [info('y')],
      nodes: [op('Relu x -> y'), op('Neg x -> y', [], 'again')],
    });
    expect(() => new Graph(twice)).toThrow(expect.objectContaining({ node: 'again' }));
  });

  it('removes what no output needs: nodes, initializers, functions; not what a subgraph reads', () => {
    const model = richModel();
    model.functions.push(clone(ModelProtoSchema, model).functions[0]!);
    model.functions[1]!.name = 'Unused';
    const slim = rewrite(model, (graph) => void graph.removeDead());
    expect(slim.functions.map((fn) => fn.name)).toEqual(['Scale']);
    expect(slim.graph!.initializer).toEqual([]);
    expect(opsOf(slim)).toEqual(['Constant', 'If', 'Scale']);
    const kept = rewrite(capturing(), (graph) => {
      graph.insertOp('Neg', [graph.mustGet('x')]);
      expect(graph.removeDead()).toBe(1);
    });
    expect(kept.graph!.initializer.map((t) => t.name)).toEqual(['w']);
  });

  it('keeps derived names short, and different, along a chain of any length', () => {
    const graph = new Graph(tinyModel({ inputs: [info('x', [3])], outputs: [], nodes: [] }));
    let value = graph.mustGet('x');
    for (let i = 0; i < 60; i++) value = graph.insertOp('Relu', [value]);
    const names = [...graph.values()].map(({ name }) => name);
    expect(new Set(names).size).toBe(61);
    expect(Math.max(...names.map((name) => name.length))).toBeLessThanOrEqual(50);
  });

  it('adds an optional output at its place', async () => {
    const graph = new Graph(
      tinyModel({
        inputs: [info('x', [2, 3])],
        outputs: [info('y')],
        nodes: [op('LayerNormalization x s -> y')],
        initializers: [weights('s', [3])],
      }),
    );
    const [node] = graph.nodes;
    const deviation = graph.addOutput(node!, 2, 'y');
    expect(deviation.name).not.toBe('y');
    expect(node!.outputs.map((value) => value?.name)).toEqual(['y', undefined, deviation.name]);
    checkLinks(graph);
    // Another node takes over what it gives: the producer must find the place among its outputs.
    const raw = graph.detach(deviation);
    expect(node!.outputs[2]).toBe(raw);
    graph.insert({ opType: 'Neg', inputs: [raw], outputs: [deviation] });
    exposeValue(graph, deviation);
    checkLinks(graph);
    const result = await run(graph.toModel(), { x: tensorFeed([2, 3]) });
    expect(result['y']!.dims).toEqual([2, 3]);
    expect(result[deviation.name]!.dims).toEqual([2, 1]);
    expect(Math.max(...(result[deviation.name]!.data as Float32Array))).toBeLessThan(0);
  });

  it('renames sparse initializers', () => {
    const model = richModel();
    model.graph!.node.push(op('Neg sparse -> unused'));
    const renamed = rewrite(model, (graph) => {
      graph.rename(graph.mustGet('sparse'), 's');
    });
    expect(renamed.graph!.sparseInitializer[0]!.values!.name).toBe('s');
    expect(model.graph!.sparseInitializer[0]!.values!.name).toBe('sparse');
  });

  it('orders any acyclic graph, and keeps an order that is right', () => {
    const dag = fc.array(fc.array(fc.nat(1000), { minLength: 1, maxLength: 3 }), { minLength: 1, maxLength: 25 });
    fc.assert(
      fc.property(dag, fc.nat(), (edges, seed) => {
        const nodes = edges.map((inputs, i) =>
          op(
            `Sum ${inputs.map((at) => (i === 0 ? 'x' : `v${String(at % i)}`)).join(' ')} -> v${String(i)}`,
            [],
            `n${String(i)}`,
          ),
        );
        const outputs = [info(`v${String(nodes.length - 1)}`)];
        const inOrder = new Graph(tinyModel({ inputs: [info('x')], outputs, nodes }));
        expect(inOrder.nodes.map((n) => n.name)).toEqual(nodes.map((n) => n.name));
        const shuffled = nodes
          .map((n, i) => ({ n, key: Math.imul(i + 1, seed | 1) >>> 0 }))
          .sort((a, b) => a.key - b.key);
        const graph = new Graph(tinyModel({ inputs: [info('x')], outputs, nodes: shuffled.map(({ n }) => n) }));
        checkLinks(graph);
        validateModel(graph.toModel(), { requireSorted: true });
        // What is left is exactly what the output can be reached from.
        const needed = new Set<number>();
        const visit = (i: number): void => {
          if (needed.has(i)) return;
          needed.add(i);
          if (i > 0) for (const at of edges[i]!) visit(at % i);
        };
        visit(nodes.length - 1);
        graph.removeDead();
        checkLinks(graph);
        expect(graph.nodeCount).toBe(needed.size);
      }),
      { numRuns: 60 },
    );
  });
});
