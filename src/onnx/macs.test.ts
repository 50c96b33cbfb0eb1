import { create } from '@bufbuild/protobuf';
import fc from 'fast-check';
import { GraphProtoSchema, type GraphProto, type ModelProto, type NodeProto, type TensorProto } from 'onnx-buf';
import { describe, expect, it } from 'vitest';
import { nodeEngine } from '../node/onnxruntime.js';
import type { HostTensor } from '../runtime/engine.js';
import { traceShapes, traceValues } from '../runtime/trace.js';
import { floatValue, modelOf, node } from '../testing/rich-model.js';
import { convNet, weights } from '../testing/tiny-net.js';
import { intAttribute, intsAttribute, stringAttribute } from './attributes.js';
import { DataType } from './dtypes.js';
import { Graph } from './graph.js';
import { macCounter, modelMacs, valuesForMacs } from './macs.js';
import { makeTensor } from './tensor.js';

const engine = nodeEngine({ threads: 1 });

function zeros(dims: number[]): HostTensor {
  return { type: 'float32', dims, data: new Float32Array(dims.reduce((a, b) => a * b, 1)) };
}

function graphModel(
  nodes: NodeProto[],
  inputs: Record<string, number[]>,
  output: string,
  rank: number,
  initializer: TensorProto[] = [],
): ModelProto {
  const graph: GraphProto = create(GraphProtoSchema, {
    name: 'g',
    node: nodes,
    initializer,
    input: Object.entries(inputs).map(([name, dims]) => floatValue(name, dims)),
    output: [
      floatValue(
        output,
        Array.from({ length: rank }, (_, i) => `d${i}`),
      ),
    ],
  });
  return modelOf(graph);
}

async function countOf(model: ModelProto, inputs: Record<string, number[]>, samples = 1): Promise<number | undefined> {
  const feeds = Object.fromEntries(Object.entries(inputs).map(([name, dims]) => [name, zeros(dims)]));
  return modelMacs(new Graph(model), await traceShapes(engine, model, feeds), samples);
}

describe('multiply-accumulates', () => {
  it('of a convolution are those of the plain loops', async () => {
    const geometry = fc.record({
      batch: fc.integer({ min: 1, max: 2 }),
      groups: fc.integer({ min: 1, max: 3 }),
      inPerGroup: fc.integer({ min: 1, max: 3 }),
      outPerGroup: fc.integer({ min: 1, max: 3 }),
      size: fc.integer({ min: 4, max: 6 }),
      kernel: fc.integer({ min: 1, max: 3 }),
      stride: fc.integer({ min: 1, max: 2 }),
      pad: fc.integer({ min: 0, max: 1 }),
    });
    await fc.assert(
      fc.asyncProperty(geometry, async ({ batch, groups, inPerGroup, outPerGroup, size, kernel, stride, pad }) => {
        const model = graphModel(
          [
            node('Conv', ['x', 'w'], ['y'], {
              attribute: [
                intAttribute('group', groups),
                intsAttribute('strides', [stride, stride]),
                intsAttribute('pads', [pad, pad, pad, pad]),
              ],
            }),
          ],
          { x: [batch, groups * inPerGroup, size, size] },
          'y',
          4,
          [weights('w', [groups * outPerGroup, inPerGroup, kernel, kernel])],
        );
        let loops = 0;
        for (let n = 0; n < batch; n++)
          for (let g = 0; g < groups; g++)
            for (let o = 0; o < outPerGroup; o++)
              for (let top = -pad; top + kernel <= size + pad; top += stride)
                for (let left = -pad; left + kernel <= size + pad; left += stride)
                  for (let i = 0; i < inPerGroup; i++)
                    for (let ky = 0; ky < kernel; ky++) for (let kx = 0; kx < kernel; kx++) loops++;
        expect(await countOf(model, { x: [batch, groups * inPerGroup, size, size] })).toBe(loops);
      }),
      { numRuns: 15 },
    );
  });

  it('of a grouped transposed convolution scatter every input element', async () => {
    // [1, 4, 3, 3], two groups of 2 -> 3 channels, 2x2 kernel: 4 * 9 input elements reach 3 channels x 4 taps each.
    const model = graphModel(
      [
        node('ConvTranspose', ['x', 'w'], ['y'], {
          attribute: [intAttribute('group', 2), intsAttribute('strides', [2, 2])],
        }),
      ],
      { x: [1, 4, 3, 3] },
      'y',
      4,
      [weights('w', [4, 3, 2, 2])],
    );
    expect(await countOf(model, { x: [1, 4, 3, 3] })).toBe(4 * 9 * 3 * 4);
  });

  it('of Gemm follow the transposed operands, those of MatMul the batch axes', async () => {
    const gemm = graphModel(
      [node('Gemm', ['a', 'b'], ['y'], { attribute: [intAttribute('transA', 1), intAttribute('transB', 1)] })],
      { a: [7, 2], b: [5, 7] },
      'y',
      2,
    );
    expect(await countOf(gemm, { a: [7, 2], b: [5, 7] })).toBe(2 * 7 * 5);
    const attention = { q: [2, 3, 4, 5], k: [2, 3, 5, 6] };
    const product = graphModel([node('MatMul', ['q', 'k'], ['y'])], attention, 'y', 4);
    expect(await countOf(product, attention)).toBe(2 * 3 * 4 * 5 * 6);
    const einsum = graphModel(
      [node('Einsum', ['q', 'k'], ['y'], { attribute: [stringAttribute('equation', 'bhij,bhjk->bhik')] })],
      attention,
      'y',
      4,
    );
    expect(await countOf(einsum, attention)).toBe(2 * 3 * 4 * 5 * 6);
    const ellipsis = graphModel(
      [node('Einsum', ['q', 'k'], ['y'], { attribute: [stringAttribute('equation', '...ij,...jk->...ik')] })],
      attention,
      'y',
      4,
    );
    expect(await countOf(ellipsis, attention)).toBe(2 * 3 * 4 * 5 * 6);
  });

  it('of an LSTM are four gates per step over input and state', async () => {
    const [steps, batch, width, hidden] = [3, 2, 5, 4];
    const model = graphModel(
      [node('LSTM', ['x', 'w', 'r'], ['y'], { attribute: [intAttribute('hidden_size', hidden)] })],
      { x: [steps, batch, width] },
      'y',
      4,
      [weights('w', [1, 4 * hidden, width]), weights('r', [1, 4 * hidden, hidden])],
    );
    expect(await countOf(model, { x: [steps, batch, width] })).toBe(steps * batch * 4 * hidden * (width + hidden));
  });

  it('are per sample, whatever the batch that was traced', async () => {
    // 8x8 positions: 3x3 over 3 channels into 4, depthwise 3x3 over 4, 1x1 over 4 into 4; then 4 into 5.
    const expected = 64 * (4 * 27 + 4 * 9 + 16) + 20;
    expect(await countOf(convNet(), { image: [1, 3, 8, 8] })).toBe(expected);
    expect(await countOf(convNet(), { image: [3, 3, 8, 8] }, 3)).toBe(expected);
  });

  it('need the shapes of few values only', async () => {
    const model = convNet();
    const graph = new Graph(model);
    const wanted = valuesForMacs(graph);
    expect([...wanted].sort()).toEqual(['a', 'c', 'd', 'e', 'h', 'image', 'scores']);
    const values = await traceValues(engine, model, { image: zeros([1, 3, 8, 8]) }, wanted);
    expect(modelMacs(graph, values)).toBe(await countOf(model, { image: [1, 3, 8, 8] }));
  });

  it('do not count what is computed while the model is loaded', async () => {
    const model = graphModel(
      [node('MatMul', ['w1', 'w2'], ['w']), node('MatMul', ['x', 'w'], ['y'])],
      { x: [1, 3] },
      'y',
      2,
      [weights('w1', [3, 4]), weights('w2', [4, 6])],
    );
    expect(await countOf(model, { x: [1, 3] })).toBe(3 * 6);
  });

  it('are unknown, not zero, for missing shapes, bodies with work and unknown operators', () => {
    const conv = new Graph(convNet());
    expect(modelMacs(conv, new Map())).toBeUndefined();
    const body = create(GraphProtoSchema, {
      name: 'then',
      node: [node('MatMul', ['x', 'x'], ['t'])],
      output: [floatValue('t', [2, 2])],
    });
    const branch = node('If', ['c'], ['y']);
    branch.attribute = [{ ...intAttribute('then_branch', 0), g: body }];
    const counter = macCounter(new Graph(graphModel([branch], { x: [2, 2], c: [] }, 'y', 2)), new Map());
    expect(counter.total()).toBeUndefined();
    const strange = graphModel([node('Fancy', ['x'], ['y'], { domain: 'custom' })], { x: [1] }, 'y', 1);
    expect(modelMacs(new Graph(strange), new Map())).toBeUndefined();
    const plain = graphModel([node('Relu', ['x'], ['y'])], { x: [1] }, 'y', 1, [
      makeTensor('unused', DataType.FLOAT, [1], [1]),
    ]);
    expect(modelMacs(new Graph(plain), new Map())).toBe(0);
  });
});
