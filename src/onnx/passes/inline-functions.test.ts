import { create } from '@bufbuild/protobuf';
import fc from 'fast-check';
import {
  AttributeProto_AttributeType as Kind,
  AttributeProtoSchema,
  FunctionProtoSchema,
  type AttributeProto,
  type FunctionProto,
  type GraphProto,
  type ModelProto,
  type NodeProto,
} from 'onnx-buf';
import { describe, expect, it } from 'vitest';
import { checkGradients, randomArray } from '../../testing/check-gradients.js';
import {
  distance,
  engine,
  info,
  noise,
  op,
  opsOf,
  run,
  tensorFeed,
  tinyGraph,
  tinyModel,
  weights,
  type TinyModel,
} from '../../testing/graph-writing.js';
import { tinyResNet } from '../../testing/tiny-models.js';
import { traceShapes } from '../../runtime/trace.js';
import { deploy } from '../../quantization/deploy.js';
import { int8Candidates } from '../../quantization/execution/candidates.js';
import { quantizedValues } from '../../quantization/execution/quantized-values.js';
import { roundLayerNearest } from '../../quantization/round-layer.js';
import { floatAttribute, intAttribute, referenceAttribute } from '../attributes.js';
import { DataType } from '../dtypes.js';
import { Graph, rewrite } from '../graph.js';
import { findLayers, weightMatrix } from '../layers.js';
import { makeTensor } from '../tensor.js';
import { validateModel } from '../validate.js';
import { inlineFunctions } from './inline-functions.js';

const OPSET = 17;
const x = info('x', [2, 3]);
const feeds = { x: tensorFeed([2, 3]) };

/** `fn('Scale a -> b', nodes)`: a function of the domain `local`. */
function fn(text: string, node: NodeProto[], rest: Partial<FunctionProto> = {}): FunctionProto {
  const { opType: name, input, output } = op(text);
  const opsetImport = [
    { domain: '', version: BigInt(OPSET) },
    { domain: 'local', version: 1n },
  ];
  return Object.assign(create(FunctionProtoSchema, { name, domain: 'local', input, output, node, opsetImport }), rest);
}

function call(text: string, attributes: Parameters<typeof op>[1] = [], name = ''): NodeProto {
  return Object.assign(op(text, attributes, name), { domain: 'local' });
}

function modelWith(functions: FunctionProto[], spec: Partial<TinyModel> & Pick<TinyModel, 'nodes'>): ModelProto {
  const model = tinyModel({ opset: OPSET, inputs: [x], outputs: [info('y')], ...spec });
  const [domain] = create(FunctionProtoSchema, { opsetImport: [{ domain: 'local', version: 1n }] }).opsetImport;
  return Object.assign(model, { functions, opsetImport: [...model.opsetImport, domain!] });
}

function graphAttribute(name: string, g: GraphProto) {
  return create(AttributeProtoSchema, { name, type: Kind.GRAPH, g });
}

/** No calls are left, and the outputs are the same bit by bit. */
async function check(model: ModelProto, given: Parameters<typeof run>[1] = feeds): Promise<ModelProto> {
  const inlined = rewrite(model, (graph) => void inlineFunctions(graph));
  validateModel(inlined, { requireSorted: true });
  expect(inlined.functions).toEqual([]);
  expect(JSON.stringify(inlined.graph!.node.map((node) => node.domain))).not.toContain('local');
  expect(distance(await run(model, given), await run(inlined, given))).toBe(0);
  return inlined;
}

/** a * factor, twice if asked to by its caller's attribute. */
const scale = fn(
  'Scale a -> b',
  [
    op('Constant -> c', [referenceAttribute('value_float', 'factor', Kind.FLOAT)]),
    op('Mul a c -> t'),
    op('Relu t -> b', [], 'last'),
  ],
  { attributeProto: [floatAttribute('factor', -0.5)] },
);

/** Calls another function with an attribute of its own, and one of its caller's. */
const twice = fn('Twice a -> b c', [
  call('Scale a -> t', [floatAttribute('factor', 2)]),
  call('Scale t -> b', [referenceAttribute('factor', 'f', Kind.FLOAT)], 'inner'),
  op('Sub a b -> c'),
]);

/** Clip with a bound that may be left out. */
const bounded = fn('Bounded a low high -> b', [op('Clip a low high -> b')]);

/** A branch that reads an input of the function and a value of it, and calls a function. */
const branching = fn('Branching a -> b', [
  op('ReduceSum a -> s', [intAttribute('keepdims', 0)]),
  op('Constant -> zero', [floatAttribute('value_float', 0)]),
  op('Greater s zero -> positive'),
  op('If positive -> b', [
    graphAttribute('then_branch', tinyGraph({ nodes: [call('Scale a -> t')], outputs: [info('t')] })),
    graphAttribute(
      'else_branch',
      tinyGraph({
        nodes: [op('Mul a w -> m'), op('Add m s -> v')],
        initializers: [makeTensor('w', DataType.FLOAT, [3], [3, 2, 1])],
        outputs: [info('v')],
      }),
    ),
  ]),
]);

describe('inlineFunctions', () => {
  it('binds attributes, given or by default, and names what it inserts', async () => {
    const nodes = [call('Scale x -> h', [floatAttribute('factor', 3)], 'first'), call('Scale h -> y')];
    const inlined = await check(modelWith([scale], { nodes }));
    expect(opsOf(inlined)).toEqual(['Constant', 'Mul', 'Relu', 'Constant', 'Mul', 'Relu']);
    expect(inlined.graph!.node[2]!.name).toBe('first/last');
    expect(new Set(inlined.graph!.node.flatMap((node) => node.output)).size).toBe(6);
  });

  it('leaves attributes out that neither the call nor the function gives', async () => {
    const free = fn('Free a -> b', [op('Softmax a -> b', [referenceAttribute('axis', 'axis', Kind.INT)])]);
    const nodes = [call('Free x -> h'), call('Free h -> y', [intAttribute('axis', 0)])];
    const inlined = await check(modelWith([free], { nodes }));
    expect(inlined.graph!.node.map((node) => node.attribute.length)).toEqual([0, 1]);
  });

  it('follows calls within functions', async () => {
    const f = [floatAttribute('f', 0.25)];
    const nodes = [call('Twice x -> p q', f), call('Twice q -> y z', f)];
    await check(modelWith([scale, twice], { nodes, outputs: [info('y'), info('z')] }));
  });

  // ONNX Runtime does not run such calls itself.
  it('leaves outputs out that the call does not take', async () => {
    const f = [floatAttribute('f', 0.25)];
    const nodes = [call('Twice x -> p', f), call('Twice p -> left q', f), op('Neg q -> y')];
    nodes[1]!.output[0] = '';
    const all = [call('Twice x -> p a', f), call('Twice p -> b q', f), op('Neg q -> y')];
    const few = rewrite(modelWith([scale, twice], { nodes }), (graph) => void inlineFunctions(graph));
    expect(distance(await run(few, feeds), await run(modelWith([scale, twice], { nodes: all }), feeds))).toBe(0);
  });

  it('leaves optional inputs empty', async () => {
    const initializers = [makeTensor('l', DataType.FLOAT, [], [-0.25]), makeTensor('h', DataType.FLOAT, [], [0.5])];
    const nodes = [call('Bounded x l -> a'), call('Bounded a _ h -> b'), call('Bounded b -> y')];
    const inlined = await check(modelWith([bounded], { nodes, initializers }));
    expect(inlined.graph!.node.map((node) => node.input.length)).toEqual([2, 3, 1]);
  });

  it('renames into subgraphs, and out of them', async () => {
    const outer = tinyGraph({ nodes: [call('Branching x -> r')], outputs: [info('r')] });
    const inner = tinyGraph({ nodes: [op('Neg x -> t'), call('Scale t -> r2')], outputs: [info('r2')] });
    const nodes = [
      call('Branching x -> a', [], 'a'),
      op('Neg a -> n'),
      call('Branching n -> b'),
      op('If flag -> c', [graphAttribute('then_branch', outer), graphAttribute('else_branch', inner)]),
      op('Sum a b c -> y'),
    ];
    for (const flag of [0, 1]) {
      const initializers = [makeTensor('flag', DataType.BOOL, [], Uint8Array.of(flag))];
      const model = modelWith([scale, branching], { nodes, initializers });
      await check(model);
      await check(model, { x: { ...feeds.x, data: noise(6, 3).map((v) => -Math.abs(v)) } });
    }
  });

  // ONNX Runtime refuses the functions of the next two tests.
  it('binds attributes within subgraphs', async () => {
    const branches = (u: AttributeProto) =>
      ['then_branch', 'else_branch'].map((name) =>
        graphAttribute(
          name,
          tinyGraph({ nodes: [op('Constant -> u', [u]), op('Add a u -> v')], outputs: [info('v')] }),
        ),
      );
    const node = op('If c -> b', branches(referenceAttribute('value_float', 'shift', Kind.FLOAT)));
    const shifted = fn('Shifted a c -> b', [node]);
    const flag = makeTensor('flag', DataType.BOOL, [], Uint8Array.of(1));
    const calls = [call('Shifted x flag -> h', [floatAttribute('shift', 0.5)])];
    calls.push(call('Shifted h flag -> y', [floatAttribute('shift', -2)]));
    const inlined = rewrite(modelWith([shifted], { nodes: calls, initializers: [flag] }), (graph) => {
      inlineFunctions(graph);
    });
    validateModel(inlined, { requireSorted: true });
    const { y } = await run(inlined, feeds);
    expect([...y!.data]).toEqual([...feeds.x.data].map((v) => Math.fround(Math.fround(Number(v) + 0.5) - 2)));
  });

  it('copies inputs that a function hands through, and values under two names', async () => {
    const through = fn('Through a -> a b b', [op('Neg a -> b')]);
    const nodes = [call('Through x -> p q r'), op('Sum p q r -> y')];
    const model = modelWith([through], { nodes, outputs: [info('y'), info('p')] });
    const inlined = rewrite(model, (graph) => void inlineFunctions(graph));
    expect(opsOf(inlined).sort()).toEqual(['Identity', 'Identity', 'Neg', 'Sum']);
    const { y, p } = await run(inlined, feeds);
    expect(p!.data).toEqual(feeds.x.data);
    expect([...y!.data]).toEqual([...feeds.x.data].map((v) => -Number(v)));
  });

  it('sorts the nodes of a function and keeps names of the graph', async () => {
    const nodes = [op('Neg x -> h/t', [], 'h/last'), call('Scale h/t -> h'), op('Neg h -> y')];
    const inlined = rewrite(modelWith([scale], { nodes }), (graph) => void inlineFunctions(graph));
    expect(new Set(inlined.graph!.node.flatMap((node) => node.output)).size).toBe(5);
    expect(inlined.graph!.node.map((node) => node.name)).toEqual(['h/last', '', '', 'h/last_', '']);
    const shuffled = fn('Shuffled a -> b', [op('Relu t -> b'), op('Neg a -> t')]);
    const sorted = rewrite(modelWith([shuffled], { nodes: [call('Shuffled x -> y')] }), (graph) => {
      inlineFunctions(graph);
    });
    expect(opsOf(sorted)).toEqual(['Neg', 'Relu']);
  });

  it('tells overloads apart', () => {
    const one = fn('F a -> b', [op('Neg a -> b')], { overload: 'one' });
    const two = fn('F a -> b', [op('Abs a -> b')], { overload: 'two' });
    const nodes = [Object.assign(call('F x -> y'), { overload: 'two' })];
    expect(opsOf(rewrite(modelWith([one, two], { nodes }), (graph) => void inlineFunctions(graph)))).toEqual(['Abs']);
  });

  it('imports operator sets that only functions use, and refuses two versions of one', () => {
    const imports = (versions: Record<string, number>) =>
      create(FunctionProtoSchema, {
        opsetImport: Object.entries(versions).map(([domain, version]) => ({ domain, version: BigInt(version) })),
      }).opsetImport;
    const gelu = Object.assign(op('Gelu a -> b'), { domain: 'com.microsoft' });
    const foreign = fn('Foreign a -> b', [gelu], { opsetImport: imports({ 'com.microsoft': 1, '': 13 }) });
    const graph = new Graph(modelWith([foreign], { nodes: [call('Foreign x -> y')] }));
    expect(inlineFunctions(graph)).toBe(1);
    expect(graph.opset('com.microsoft')).toBe(1);
    expect(graph.opset()).toBe(OPSET);
    const old = fn('Old a -> b', [op('Neg a -> b')], { opsetImport: imports({ 'ai.onnx': 13 }) });
    expect(() => inlineFunctions(new Graph(modelWith([old], { nodes: [call('Old x -> y')] })))).toThrow(
      /version 13 of ai.onnx, the model for 17/,
    );
  });

  it('refuses functions that call themselves, and names that nothing makes', () => {
    const ring = fn('Ring a -> b', [call('Ring a -> b')]);
    expect(() => inlineFunctions(new Graph(modelWith([ring], { nodes: [call('Ring x -> y')] })))).toThrow(
      /Ring calls itself/,
    );
    const broken = fn('Broken a -> b', [op('Add a missing -> b')]);
    expect(() => inlineFunctions(new Graph(modelWith([broken], { nodes: [call('Broken x -> y')] })))).toThrow(
      /reads 'missing'/,
    );
  });

  it('leaves a model without functions alone', () => {
    const graph = new Graph(tinyModel({ inputs: [x], outputs: [info('y')], nodes: [op('Neg x -> y')] }));
    expect(inlineFunctions(graph)).toBe(0);
  });

  it('gives equal outputs for any chain of calls', async () => {
    const step = fc.record({
      name: fc.constantFrom('Scale', 'Twice', 'Bounded', 'Branching'),
      value: fc.constantFrom(-1, 0.5, 2),
      named: fc.boolean(),
      from: fc.nat(),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 5 }), async (steps) => {
        const values = ['x'];
        const nodes = steps.map(({ name, value, named, from }, i) => {
          const source = values[from % values.length]!;
          values.push(`t${String(i)}`);
          const outputs = name === 'Twice' ? `t${String(i)} a${String(i)}` : `t${String(i)}`;
          const attribute = name === 'Scale' ? 'factor' : name === 'Twice' ? 'f' : undefined;
          const attributes = attribute ? [floatAttribute(attribute, value)] : [];
          return call(`${name} ${source} -> ${outputs}`, attributes, named ? `n${String(i)}` : '');
        });
        nodes.push(op(`Sum ${values.join(' ')} -> y`));
        await check(modelWith([scale, twice, bounded, branching], { nodes }));
      }),
      { numRuns: 25 },
    );
  });

  it('makes a call differentiable', () => {
    const affine = fn('Affine a w -> b', [op('MatMul a w -> t'), op('Add t a -> b')]);
    const spec = { nodes: [call('Affine x w -> h'), call('Affine h w -> y')], initializers: [weights('w', [3, 3])] };
    const inlined = rewrite(modelWith([affine], spec), (graph) => void inlineFunctions(graph));
    checkGradients(inlined, { x: randomArray([2, 3], 1) }, { wanted: ['x', 'w'] });
  });
});

describe('inlineFunctions on files of this library', () => {
  it.each(['float', 'int8'] as const)('a packed model that runs in %s gives the same outputs', async (execution) => {
    const model = tinyResNet(OPSET);
    const image = { x: tensorFeed([4, 3, 8, 8]) };
    const graph = new Graph(model);
    const shapes = await traceShapes(engine, model, image);
    const int8 = new Set(execution === 'int8' ? int8Candidates(graph, shapes, 'cpu').keys() : []);
    const activations = quantizedValues(graph, int8).map(
      (q) => [q.value.name, { scale: 0.05, zeroPoint: 128 }] as const,
    );
    const packed = deploy(model, {
      weights: new Map(
        findLayers(graph).map((l) => [l.name, roundLayerNearest(l, weightMatrix(graph, l), 4, true)] as const),
      ),
      activations: new Map(activations),
      int8,
    });
    expect(packed.functions.length).toBeGreaterThan(0);
    const inlined = rewrite(packed, (editable) => void inlineFunctions(editable));
    validateModel(inlined);
    expect(inlined.functions).toEqual([]);
    expect(distance(await run(packed, image), await run(inlined, image))).toBe(0);
  });
});
