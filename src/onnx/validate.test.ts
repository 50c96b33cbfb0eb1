import { create } from '@bufbuild/protobuf';
import {
  AttributeProtoSchema,
  FunctionProtoSchema,
  GraphProtoSchema,
  SparseTensorProtoSchema,
  TensorProtoSchema,
  type GraphProto,
  type ModelProto,
  type NodeProto,
} from 'onnx-buf';
import { describe, expect, it } from 'vitest';
import { FlowCompressError } from '../errors.js';
import { chainModel, floatValue, modelOf, node, richModel } from '../testing/rich-model.js';
import { DataType } from './dtypes.js';
import { makeTensor } from './tensor.js';
import { validateModel, type ValidateOptions } from './validate.js';

function refusal(model: ModelProto, options?: ValidateOptions): FlowCompressError {
  try {
    validateModel(model, options);
  } catch (error) {
    if (error instanceof FlowCompressError) return error;
    throw error;
  }
  throw new Error('nothing was refused');
}

function modelWith(nodes: NodeProto[], outputs: string[], rest: Partial<GraphProto> = {}): ModelProto {
  const graph = create(GraphProtoSchema, {
    name: 'g',
    node: nodes,
    input: [floatValue('x', [2])],
    output: outputs.map((name) => floatValue(name, [2])),
  });
  return modelOf(Object.assign(graph, rest));
}

function subgraph(nodes: NodeProto[], output: string): NodeProto['attribute'] {
  const g = create(GraphProtoSchema, { name: 'body', node: nodes, output: [floatValue(output, [2])] });
  return [create(AttributeProtoSchema, { name: 'then_branch', type: 5, g })];
}

const relu = (input: string, output: string): NodeProto => node('Relu', [input], [output]);

describe('validateModel', () => {
  it('accepts models with every kind of content', () => {
    validateModel(richModel(), { requireSorted: true });
    validateModel(chainModel(3, 4), { requireSorted: true });
    validateModel(modelWith([], ['x']));
  });

  it('names the nodes of a cycle', () => {
    const error = refusal(
      modelWith([relu('x', 'a'), relu('d', 'b'), relu('b', 'c'), relu('c', 'd'), relu('d', 'y')], ['y']),
    );
    expect(error.message).toContain('cycle');
    expect(error.message).toMatch(
      /Relu_b -> Relu_c -> Relu_d -> Relu_b|Relu_c -> Relu_d -> Relu_b -> Relu_c|Relu_d -> Relu_b -> Relu_c -> Relu_d/,
    );
    expect(error.message).not.toContain('Relu_y');
    expect(refusal(modelWith([node('Add', ['x', 'y'], ['y'])], ['y'])).message).toContain('Add_y -> Add_y');
  });

  it('accepts any order unless a sorted one is asked for', () => {
    const model = modelWith([relu('a', 'y'), relu('x', 'a')], ['y']);
    validateModel(model);
    const error = refusal(model, { requireSorted: true });
    expect(error.node).toBe('Relu_y');
    expect(error.message).toContain('Relu_a');
    expect(error.hint).toContain('Sort');
  });

  it('counts what a subgraph captures as an input of its node', () => {
    const body = subgraph([node('Add', ['x', 'late'], ['inner'])], 'inner');
    const model = modelWith([node('If', ['x'], ['y'], { attribute: body }), relu('x', 'late')], ['y']);
    validateModel(model);
    expect(refusal(model, { requireSorted: true }).node).toBe('If_y');
    const circular = modelWith([node('If', ['x'], ['y'], { attribute: body }), relu('y', 'late')], ['y']);
    expect(refusal(circular).message).toContain('cycle');
  });

  it('names the node that reads an unknown value, in subgraphs and functions too', () => {
    expect(refusal(modelWith([relu('nowhere', 'y')], ['y']))).toMatchObject({ node: 'Relu_y' });
    const body = subgraph([relu('nowhere', 'inner')], 'inner');
    const inner = refusal(modelWith([node('If', ['x'], ['y'], { attribute: body })], ['y']));
    expect(inner).toMatchObject({ node: 'Relu_inner' });
    expect(inner.message).toContain('"nowhere"');
    // A value inside a subgraph is not visible outside.
    const outside = modelWith(
      [node('If', ['x'], ['y'], { attribute: subgraph([relu('x', 'inner')], 'inner') }), relu('inner', 'z')],
      ['z'],
    );
    expect(refusal(outside)).toMatchObject({ node: 'Relu_z' });
    // A function does not see the graph that calls it.
    const model = richModel();
    model.functions[0].node[1].input = ['a', 'x'];
    expect(refusal(model)).toMatchObject({ node: 'Mul_b' });
  });

  it('refuses values that are defined twice', () => {
    expect(refusal(modelWith([relu('x', 'y'), relu('x', 'y')], ['y'])).message).toContain(
      '"y" is defined more than once',
    );
    expect(refusal(modelWith([relu('x', 'x')], ['x'])).node).toBe('x');
    const weights = makeTensor('w', DataType.FLOAT, [1], [1]);
    expect(refusal(modelWith([], ['x'], { initializer: [weights, weights] })).message).toContain('an initializer');
    const sparse = create(SparseTensorProtoSchema, {
      values: weights,
      indices: makeTensor('', DataType.INT64, [1], [0]),
      dims: [3n],
    });
    expect(refusal(modelWith([], ['x'], { initializer: [weights], sparseInitializer: [sparse] })).node).toBe('w');
    expect(refusal(modelWith([], ['x'], { input: [floatValue('x', [1]), floatValue('x', [1])] })).message).toContain(
      'a graph input',
    );
  });

  it('lets an initializer be the default of an input', () => {
    validateModel(modelWith([relu('x', 'y')], ['y'], { initializer: [makeTensor('x', DataType.FLOAT, [2], [1, 2])] }));
  });

  it('refuses tensors whose contents do not fit, wherever they are', () => {
    const bad = create(TensorProtoSchema, {
      name: 'w',
      dataType: DataType.FLOAT,
      dims: [2n],
      rawData: new Uint8Array(4),
    });
    expect(refusal(modelWith([], ['x'], { initializer: [bad] }))).toMatchObject({ node: 'w' });
    const unknown = create(TensorProtoSchema, { dataType: 99, dims: [1n] });
    const constant = node('Constant', [], ['c'], {
      attribute: [create(AttributeProtoSchema, { name: 'value', type: 4, t: unknown })],
    });
    const error = refusal(modelWith([constant], ['c']));
    expect(error).toMatchObject({ node: 'Constant_c' });
    expect(error.message).toContain('99');
  });

  it('needs an opset import for every domain, within the supported range', () => {
    expect(refusal(modelWith([node('Gelu', ['x'], ['y'], { domain: 'com.example' })], ['y']))).toMatchObject({
      node: 'Gelu_y',
    });
    const model = modelWith([relu('x', 'y')], ['y']);
    for (const version of [7n, 27n]) {
      model.opsetImport[0].version = version;
      validateModel(model);
    }
    model.opsetImport[0].version = 6n;
    expect(refusal(model).hint).toContain('13');
    model.opsetImport[0].version = 28n;
    expect(refusal(model).hint).toContain('27');
    model.opsetImport = [];
    expect(refusal(model).message).toContain('no opset import');
    const same = modelWith([node('Relu', ['x'], ['y'], { domain: 'ai.onnx' })], ['y']);
    validateModel(same);
  });

  it('needs outputs, and their producers', () => {
    expect(refusal(modelWith([relu('x', 'y')], [])).message).toContain('no outputs');
    expect(refusal(modelWith([relu('x', 'y')], ['z'])).message).toContain('"z"');
  });

  it('refuses functions that call each other in a cycle, or exist twice', () => {
    const model = richModel();
    const fn = (name: string, calls: string): ModelProto['functions'][number] =>
      create(FunctionProtoSchema, {
        name,
        domain: 'local',
        input: ['a'],
        output: ['b'],
        opsetImport: [{ domain: 'local', version: 1n }],
        node: [node(calls, ['a'], ['b'], { domain: 'local' })],
      });
    model.functions.push(fn('F', 'G'), fn('G', 'H'), fn('H', 'Scale'));
    validateModel(model);
    model.functions[3] = fn('H', 'F');
    expect(refusal(model).message).toContain('F -> G -> H -> F');
    model.functions[3] = fn('G', 'Scale');
    expect(refusal(model).message).toContain('twice');
  });

  it('takes 100,000 nodes in a row, sorted or not, and finds one cycle among them', () => {
    const count = 100_000;
    const nodes = Array.from({ length: count }, (_, i) => node('Relu', [i === 0 ? 'x' : `v${i - 1}`], [`v${i}`]));
    const model = modelWith(nodes, [`v${count - 1}`]);
    validateModel(model, { requireSorted: true });
    model.graph!.node = [...nodes].reverse();
    validateModel(model);
    nodes[0].input = [`v${count - 1}`];
    expect(refusal(model).message).toContain(`(${count} nodes)`);
  });

  it('takes a chain of 20,000 functions', () => {
    const model = richModel();
    for (let i = 0; i < 20_000; i++) {
      const next = i === 19_999 ? 'Scale' : `F${i + 1}`;
      const call = node(next, ['a'], ['b'], { domain: 'local' });
      model.functions.push(
        create(FunctionProtoSchema, {
          name: `F${i}`,
          domain: 'local',
          input: ['a'],
          output: ['b'],
          opsetImport: [{ domain: 'local', version: 1n }],
          node: [call],
        }),
      );
    }
    validateModel(model);
  });
});
