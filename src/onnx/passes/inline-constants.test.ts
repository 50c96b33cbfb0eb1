import { create } from '@bufbuild/protobuf';
import { AttributeProto_AttributeType as Kind, AttributeProtoSchema } from 'onnx-buf';
import { describe, expect, it } from 'vitest';
import { distance, info, op, opsOf, run, tensorFeed, tinyModel, weights } from '../../testing/graph-writing.js';
import { floatAttribute, intAttribute, intsAttribute, tensorAttribute } from '../attributes.js';
import { DataType } from '../dtypes.js';
import { rewrite } from '../graph.js';
import { makeTensor } from '../tensor.js';
import { validateModel } from '../validate.js';
import { inlineConstants } from './inline-constants.js';

const x = info('x', [2, 3]);
const feeds = { x: tensorFeed([2, 3]) };

async function check(model: ReturnType<typeof tinyModel>, ops: string[]): Promise<void> {
  const inlined = rewrite(model, (graph) => void inlineConstants(graph));
  validateModel(inlined);
  expect(opsOf(inlined)).toEqual(ops);
  expect(distance(await run(model, feeds), await run(inlined, feeds))).toBe(0);
}

describe('inlineConstants', () => {
  it('stores every numeric form of Constant', async () => {
    const floats = create(AttributeProtoSchema, { name: 'value_floats', type: Kind.FLOATS, floats: [1, 2, 3] });
    const nodes = [
      op('Constant -> t', [tensorAttribute('value', makeTensor('', DataType.FLOAT, [3], [3, 2, 1]))]),
      op('Constant -> f', [floatAttribute('value_float', 0.5)]),
      op('Constant -> fs', [floats]),
      op('Constant -> i', [intAttribute('value_int', 1)]),
      op('Constant -> is', [intsAttribute('value_ints', [3, 2])]),
      op('Sum x t f fs -> a'),
      op('Reshape a is -> b'),
      op('Gather b i -> y', [intAttribute('axis', 1)]),
    ];
    await check(tinyModel({ inputs: [x], outputs: [info('y')], nodes }), ['Sum', 'Reshape', 'Gather']);
  });

  it('removes Identity and Dropout, and keeps those that give public names or may drop', async () => {
    const mode = makeTensor('off', DataType.BOOL, [], Uint8Array.of(0));
    const ratio = makeTensor('ratio', DataType.FLOAT, [], [0.5]);
    const nodes = [
      op('Identity x -> a'),
      op('Identity a -> b'),
      op('Dropout b ratio off -> c'),
      op('Dropout c -> d unread'),
      op('Relu d -> e'),
      op('Identity e -> y'),
      op('Identity x -> copy'),
      op('Identity w -> stored'),
      op('Dropout x -> z mask'),
    ];
    const outputs = ['y', 'copy', 'stored', 'z'].map((name) => info(name));
    outputs.push(info('mask', undefined, DataType.BOOL));
    const model = tinyModel({ inputs: [x], outputs, nodes, initializers: [mode, ratio, weights('w', [2])] });
    await check(model, ['Relu', 'Identity', 'Identity', 'Dropout']);
  });

  it('keeps a Constant that is an output, and one of text', async () => {
    const text = create(AttributeProtoSchema, { name: 'value_string', type: Kind.STRING, s: new Uint8Array([65]) });
    const nodes = [
      op('Constant -> k', [floatAttribute('value_float', 0.5)]),
      op('Add x k -> y'),
      op('Constant -> s', [text]),
      op('Shape s -> n'),
    ];
    const outputs = [info('k'), info('y'), info('n', undefined, DataType.INT64)];
    await check(tinyModel({ inputs: [x], outputs, nodes }), ['Constant', 'Add', 'Constant', 'Shape']);
  });
});
