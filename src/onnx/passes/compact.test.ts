import { create } from '@bufbuild/protobuf';
import {
  AttributeProto_AttributeType as Kind,
  AttributeProtoSchema,
  StringStringEntryProtoSchema,
  type AttributeProto,
} from 'onnx-buf';
import { describe, expect, it } from 'vitest';
import { richModel } from '../../testing/rich-model.js';
import { distance, info, op, run, tensorFeed, tinyGraph, tinyModel, weights } from '../../testing/graph-writing.js';
import { floatAttribute, intAttribute, intsAttribute, stringAttribute } from '../attributes.js';
import { DataType } from '../dtypes.js';
import { rewrite } from '../graph.js';
import { toBytes } from '../to-bytes.js';
import { validateModel } from '../validate.js';
import { compactNames, type Compaction } from './compact.js';
import { dropDefaultAttributes } from './drop-defaults.js';

function compacted(model: ReturnType<typeof tinyModel>) {
  let statistics: Compaction | undefined;
  const small = rewrite(model, (graph) => {
    statistics = compactNames(graph);
  });
  validateModel(small);
  return { small, statistics: statistics! };
}

function branch(name: string, text: string): AttributeProto {
  const g = tinyGraph({ nodes: [op(text)], outputs: [info(text.split('-> ')[1]!)] }, name);
  return create(AttributeProtoSchema, { name, type: Kind.GRAPH, g });
}

describe('compactNames', () => {
  it('keeps the interface, the metadata and every number', async () => {
    const model = tinyModel({
      inputs: [info('image', [2, 3, 8, 8])],
      outputs: [info('logits')],
      nodes: [
        op(
          'Conv image backbone/weight backbone/bias -> backbone/out',
          [intAttribute('group', 1), intsAttribute('kernel_shape', [3, 3])],
          'backbone',
        ),
        op('Relu backbone/out -> a', [], 'act'),
        op('Conv a head/weight b -> logits', [], 'head'),
      ],
      initializers: [
        weights('backbone/weight', [3, 3, 3, 3]),
        weights('backbone/bias', [3], 2),
        weights('head/weight', [3, 3, 3, 3]),
        weights('b', [3], 2),
      ],
    });
    model.docString = 'long text';
    model.graph!.valueInfo.push(info('backbone/out'));
    model.graph!.node[0]!.docString = 'traceback';
    model.metadataProps.push(create(StringStringEntryProtoSchema, { key: 'classes', value: 'cat, dog' }));
    const { small, statistics } = compacted(model);
    const feeds = { image: tensorFeed([2, 3, 8, 8]) };
    expect(distance(await run(model, feeds), await run(small, feeds))).toBe(0);
    expect(small.graph!.input[0]!.name).toBe('image');
    expect(small.graph!.output[0]!.name).toBe('logits');
    expect(small.metadataProps).toEqual(model.metadataProps);
    expect(small.graph!.valueInfo).toEqual([]);
    expect(small.docString).toBe('');
    expect(small.graph!.node.map((node) => node.name + node.docString)).toEqual(['', '', '']);
    // The weight and the bias are read twice, so they have the first names.
    expect(small.graph!.node.map((node) => [...node.input, ...node.output].join(' '))).toEqual([
      'image a b c',
      'c d',
      'd a b logits',
    ]);
    expect(statistics).toEqual({
      bytesBefore: toBytes(model).length,
      bytesAfter: toBytes(small).length,
      renamed: 3,
      sharedBytes: 4 * 84,
    });
  });

  it('leaves no value under a name that a subgraph or the interface bears', async () => {
    const model = tinyModel({
      inputs: [info('a', [3]), info('flag', [], DataType.BOOL)],
      outputs: [info('c')],
      nodes: [
        op('Relu a -> first_value'),
        op('Neg first_value -> second_value'),
        op('If flag -> chosen', [
          branch('then_branch', 'Add first_value second_value -> b'),
          branch('else_branch', 'Sub second_value w -> d'),
        ]),
        op('Sum chosen first_value second_value -> c'),
      ],
      initializers: [weights('w', [3])],
    });
    const { small } = compacted(model);
    const names = small.graph!.node.flatMap((node) => node.output).concat(small.graph!.initializer.map((t) => t.name));
    expect(names).not.toContain('b');
    expect(names).not.toContain('d');
    expect(names.every((name) => name.length === 1)).toBe(true);
    for (const flag of [0, 1]) {
      const feeds = { a: tensorFeed([3]), flag: { type: 'bool' as const, dims: [], data: Uint8Array.of(flag) } };
      expect(distance(await run(model, feeds), await run(small, feeds))).toBe(0);
    }
  });

  it('names more values than there are letters, each once', () => {
    const count = 4000;
    const nodes = Array.from({ length: count }, (_, i) =>
      op(`Relu ${i === 0 ? 'x' : `value_${String(i - 1)}`} -> ${i === count - 1 ? 'y' : `value_${String(i)}`}`),
    );
    const { small } = compacted(tinyModel({ inputs: [info('x')], outputs: [info('y')], nodes }));
    const names = small.graph!.node.flatMap((node) => node.output);
    expect(new Set(names).size).toBe(count);
    expect(Math.max(...names.map((name) => name.length))).toBe(3);
    expect(names.every((name) => /^[a-zA-Z][a-zA-Z0-9]*$/.test(name))).toBe(true);
  });

  it('compacts a model with functions, annotations and odd contents, twice with the same result', () => {
    const { small, statistics } = compacted(richModel());
    expect(statistics.bytesAfter).toBeLessThan(statistics.bytesBefore);
    expect(small.graph!.quantizationAnnotation).toEqual([]);
    expect(small.functions.map((fn) => fn.name)).toEqual(['Scale']);
    expect(toBytes(compacted(small).small)).toEqual(toBytes(small));
  });
});

describe('dropDefaultAttributes', () => {
  it('drops defaults and nothing else', async () => {
    const model = tinyModel({
      inputs: [info('x', [1, 2, 9, 9])],
      outputs: [info('y')],
      nodes: [
        op('Conv x w -> c', [
          intAttribute('group', 1),
          intsAttribute('dilations', [1, 1]),
          intsAttribute('strides', [2, 1]),
          intsAttribute('pads', [0, 0, 0, 0]),
          stringAttribute('auto_pad', 'NOTSET'),
        ]),
        op('MaxPool c -> p', [
          intsAttribute('kernel_shape', [2, 2]),
          intAttribute('ceil_mode', 1),
          intAttribute('storage_order', 0),
        ]),
        op('Flatten p -> f', [intAttribute('axis', 1)]),
        op('Gemm f u -> g', [
          floatAttribute('alpha', 1),
          floatAttribute('beta', 0.5),
          intAttribute('transB', 1),
          intAttribute('transA', 0),
        ]),
        op('Softmax g -> y', [intAttribute('axis', -1)]),
      ],
      initializers: [weights('w', [2, 2, 3, 3]), weights('u', [3, 36])],
    });
    const slim = rewrite(model, (graph) => void dropDefaultAttributes(graph));
    expect(slim.graph!.node.map((node) => node.attribute.map((a) => a.name).join())).toEqual([
      'strides',
      'kernel_shape,ceil_mode',
      '',
      'beta,transB',
      '',
    ]);
    const feeds = { x: tensorFeed([1, 2, 9, 9]) };
    expect(distance(await run(model, feeds), await run(slim, feeds))).toBe(0);
  });

  it('leaves older opsets alone, where defaults differ', () => {
    const model = tinyModel({
      opset: 12,
      inputs: [info('x', [1, 2, 3])],
      outputs: [info('y')],
      nodes: [op('Softmax x -> y', [intAttribute('axis', -1)])],
    });
    rewrite(model, (graph) => {
      expect(dropDefaultAttributes(graph)).toBe(0);
    });
  });
});
