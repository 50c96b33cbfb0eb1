import { create } from '@bufbuild/protobuf';
import { GraphProtoSchema, type NodeProto, type TensorProto } from 'onnx-buf';
import { describe, expect, it } from 'vitest';
import { nodeEngine } from '../node/onnxruntime.js';
import { traceShapes } from '../runtime/trace.js';
import { floatValue, modelOf, node } from '../testing/rich-model.js';
import { convNet, weights } from '../testing/tiny-net.js';
import { intAttribute, intsAttribute } from './attributes.js';
import { channelGroups, type ChannelGroup } from './channel-groups.js';
import { Graph } from './graph.js';

const engine = nodeEngine({ threads: 1 });

async function groupsOf(nodes: NodeProto[], initializer: TensorProto[], channels: number): Promise<ChannelGroup[]> {
  const model = modelOf(
    create(GraphProtoSchema, {
      name: 'g',
      node: nodes,
      initializer,
      input: [floatValue('x', ['N', channels, 4, 4])],
      output: [floatValue('y', ['a', 'b', 'c', 'd'])],
    }),
  );
  const feeds = { x: { type: 'float32' as const, dims: [1, channels, 4, 4], data: new Float32Array(channels * 16) } };
  return channelGroups(new Graph(model), await traceShapes(engine, model, feeds));
}

const conv = (name: string, input: string, output: string): NodeProto =>
  node('Conv', [input, `w_${name}`], [output], { name });

describe('channelGroups', () => {
  it('ties a residual connection and a depthwise convolution together, and leaves out the scores', async () => {
    const model = convNet();
    const feeds = { image: { type: 'float32' as const, dims: [1, 3, 8, 8], data: new Float32Array(192) } };
    const groups = channelGroups(new Graph(model), await traceShapes(engine, model, feeds));
    expect(groups).toHaveLength(1);
    expect([...groups[0].layers].sort()).toEqual(['depthwise', 'first', 'point']);
    expect(groups[0].channels).toBe(4);
  });

  it('keeps concatenated layers apart, and follows channels through flattening', async () => {
    const groups = await groupsOf(
      [
        conv('a', 'x', 'a'),
        conv('b', 'x', 'b'),
        node('Concat', ['a', 'b'], ['c'], { attribute: [intAttribute('axis', 1)] }),
        conv('d', 'c', 'd'),
        node('Flatten', ['d'], ['e']),
        node('Gemm', ['e', 'w_f'], ['f'], { name: 'f' }),
        node('Reshape', ['f', 'shape'], ['y']),
      ],
      [
        weights('w_a', [2, 3, 1, 1]),
        weights('w_b', [4, 3, 1, 1]),
        weights('w_d', [5, 6, 1, 1]),
        weights('w_f', [80, 6]),
        { ...weights('shape', [4]), dataType: 7, rawData: new Uint8Array(BigInt64Array.of(1n, 6n, 1n, 1n).buffer) },
      ],
      3,
    );
    expect(groups).toEqual([
      { layers: ['a'], channels: 2 },
      { layers: ['b'], channels: 4 },
      { layers: ['d'], channels: 5 },
    ]);
  });

  it('leaves out channels that are added to an input or shuffled', async () => {
    const added = [conv('a', 'x', 'a'), node('Add', ['a', 'x'], ['b']), conv('c', 'b', 'c'), conv('d', 'c', 'y')];
    const square = ['a', 'c', 'd'].map((name) => weights(`w_${name}`, [4, 4, 1, 1]));
    expect(await groupsOf(added, square, 4)).toEqual([{ layers: ['c'], channels: 4 }]);
    const shuffled = [
      conv('a', 'x', 'a'),
      node('DepthToSpace', ['a'], ['b'], { attribute: [intAttribute('blocksize', 2)] }),
      conv('c', 'b', 'c'),
      node('Transpose', ['c'], ['e'], { attribute: [intsAttribute('perm', [0, 2, 3, 1])] }),
      node('Relu', ['e'], ['f']),
      node('Transpose', ['f'], ['g'], { attribute: [intsAttribute('perm', [0, 3, 1, 2])] }),
      conv('d', 'g', 'y'),
    ];
    const shapes = [weights('w_a', [4, 4, 1, 1]), weights('w_c', [3, 1, 1, 1]), weights('w_d', [2, 3, 1, 1])];
    expect(await groupsOf(shuffled, shapes, 4)).toEqual([{ layers: ['c'], channels: 3 }]);
  });
});
