import { describe, expect, it } from 'vitest';
import type { ModelProto } from 'onnx-buf';
import { intAttribute, intsAttribute } from '../onnx/attributes.js';
import { DataType } from '../onnx/dtypes.js';
import { emptyModel, Graph, type Value } from '../onnx/graph.js';
import { makeTensor } from '../onnx/tensor.js';
import { tensorInfo } from '../onnx/value-info.js';
import { nodeEngine } from '../node/onnxruntime.js';
import type { HostTensor } from '../runtime/engine.js';
import { exposeValue } from '../runtime/trace.js';
import { declareOutput, normals, startGraph, tinyResNet, weight } from '../testing/tiny-models.js';
import { convNet } from '../testing/tiny-net.js';
import { centred, linearCka, openGramMaker } from './cka.js';
import { gatherFeatureGrams, joinFeatures, openFeatureReader } from './cka-features.js';
import { featuresBefore } from './fidelity-features.js';

const engine = nodeEngine({ threads: 1 });
const float = (dims: readonly number[], data: Float32Array): HostTensor => ({ type: 'float32', dims, data });

/** Rows of features in front of the last layer for the samples of one batch. */
async function featureRows(model: ModelProto, output: string, x: HostTensor): Promise<number[][] | undefined> {
  const found = featuresBefore(model, output);
  if (!found) return undefined;
  const reader = await openFeatureReader(engine, found.model, [found.value]);
  const [features] = await reader.read({ feeds: { x }, size: x.dims[0] });
  await reader.release();
  if (!features) return undefined;
  return Array.from({ length: features.samples }, (_, i) => [
    ...features.values.subarray(i * features.width, (i + 1) * features.width),
  ]);
}

/** x -> hidden (a name for what is in front) -> whatever `head` makes. */
function modelWith(dims: readonly (number | string)[], head: (graph: Graph, hidden: Value) => Value): ModelProto {
  const { graph, x } = startGraph(21, dims);
  const scores = head(graph, graph.insertOp('Abs', [x], [], 'hidden'));
  declareOutput(graph, scores, []);
  scores.info = tensorInfo(scores.name, DataType.FLOAT, ['N', 'k']);
  return graph.toModel();
}

const scalarOf = (graph: Graph, name: string, type: number, value: number): Value =>
  graph.addInitializer(
    makeTensor(name, type, [], type === DataType.FLOAT ? Float32Array.of(value) : Uint8Array.of(value)),
  );

describe('featuresBefore', () => {
  it('is the pooled input of a classifier, behind the names that the model has', () => {
    expect(featuresBefore(convNet(), 'scores')?.value).toEqual({ name: 'h', pooled: 'last' });
    expect(featuresBefore(tinyResNet(), 'logits')?.value).toEqual({ name: 'flat', pooled: 'last' });
  });

  it('is the mean over positions in front of a convolution, and over tokens in front of a product', async () => {
    const values = normals(2 * 3 * 4, 1);
    const rows = (of: (sample: number, channel: number, position: number) => number): number[][] =>
      [0, 1].map((n) =>
        [0, 1, 2].map((c) => [0, 1, 2, 3].reduce((sum, p) => sum + Math.abs(values[of(n, c, p)]) / 4, 0)),
      );
    const conv = modelWith(['N', 3, 2, 2], (graph, hidden) => {
      const map = graph.insertOp('Conv', [hidden, weight(graph, 'w', [5, 3, 1, 1], 2)]);
      return graph.insertOp('Flatten', [graph.insertOp('GlobalAveragePool', [graph.insertOp('Relu', [map])])]);
    });
    const found = await featureRows(conv, new Graph(conv).outputs[0].name, float([2, 3, 2, 2], values));
    rows((n, c, p) => n * 12 + c * 4 + p).forEach((row, n) => {
      row.forEach((v, c) => {
        expect(found![n][c]).toBeCloseTo(v, 6);
      });
    });
    const tokens = modelWith(['N', 4, 3], (graph, hidden) =>
      graph.insertOp('MatMul', [hidden, weight(graph, 'w', [3, 5], 2)]),
    );
    const seen = await featureRows(tokens, new Graph(tokens).outputs[0].name, float([2, 4, 3], values));
    rows((n, c, p) => n * 12 + p * 3 + c).forEach((row, n) => {
      row.forEach((v, c) => {
        expect(seen![n][c]).toBeCloseTo(v, 6);
      });
    });
  });

  it('looks through quantization: weights behind DequantizeLinear, integers with scales, dynamic ranges', async () => {
    const x = float([2, 3], Float32Array.of(0, 0.5, 1, 0.25, 0.75, 0.125));
    const byte = (graph: Graph): Value =>
      graph.addInitializer(makeTensor('w', DataType.UINT8, [3, 2], Uint8Array.of(1, 2, 3, 4, 5, 6)));
    const scale = (graph: Graph): Value => scalarOf(graph, 's', DataType.FLOAT, 1 / 128);
    const zero = (graph: Graph): Value => scalarOf(graph, 'z', DataType.UINT8, 0);
    const heads: Record<string, (graph: Graph, hidden: Value) => Value> = {
      dequantized: (graph, hidden) =>
        graph.insertOp('MatMul', [
          hidden,
          graph.insertOp('DequantizeLinear', [byte(graph), scale(graph), zero(graph)]),
        ]),
      integers: (graph, hidden) => {
        const [s, z] = [scale(graph), zero(graph)];
        // Doubled as integers: the features are not what was quantized.
        const q = graph.insertOp('QuantizeLinear', [hidden, s, z]);
        const max = graph.insertOp('Max', [q, q]);
        const y = graph.insertOp('QLinearMatMul', [max, s, z, byte(graph), s, z, s, z]);
        return graph.insertOp('DequantizeLinear', [y, s, z]);
      },
      dynamic: (graph, hidden) => {
        const node = graph.insert({ opType: 'DynamicQuantizeLinear', inputs: [hidden], outputs: ['q', 'qs', 'qz'] });
        const [q, , z] = node.outputs;
        const y = graph.insertOp('MatMulInteger', [q!, byte(graph), z!]);
        return graph.insertOp('Cast', [y], [intAttribute('to', DataType.FLOAT)]);
      },
    };
    for (const [name, head] of Object.entries(heads)) {
      const model = modelWith(['N', 3], head);
      const rows = await featureRows(model, new Graph(model).outputs[0].name, x);
      expect(rows, name).toEqual([
        [0, 0.5, 1],
        [0.25, 0.75, 0.125],
      ]);
    }
  });

  it('passes over products of two computed values, and finds nothing where there are no weights', async () => {
    const model = modelWith(['N', 2, 2], (graph, hidden) => {
      const before = graph.insertOp('MatMul', [hidden, weight(graph, 'w', [2, 2], 2)]);
      return graph.insertOp('MatMul', [before, before]);
    });
    expect(featuresBefore(model, new Graph(model).outputs[0].name)?.value.name).toBe('hidden');
    const none = modelWith(['N', 3], (graph, hidden) => graph.insertOp('Relu', [hidden]));
    expect(featuresBefore(none, new Graph(none).outputs[0].name)).toBeUndefined();
  });

  it('takes an input of the model that the last layer reads', async () => {
    const { graph, x } = startGraph(17, ['N', 3]);
    declareOutput(graph, graph.insertOp('MatMul', [x, weight(graph, 'w', [3, 2], 1)]), ['N', 2]);
    const rows = await featureRows(
      graph.toModel(),
      graph.outputs[0].name,
      float([2, 3], Float32Array.of(1, 2, 3, 4, 5, 6)),
    );
    expect(rows).toEqual([
      [1, 2, 3],
      [4, 5, 6],
    ]);
  });
});

describe('gatherFeatureGrams', () => {
  /** [T, N, C] and [N * T, C] of [N, T, C], and a value without samples. */
  function layoutsModel(): ModelProto {
    const graph = new Graph(emptyModel(17));
    const x = graph.addInput(tensorInfo('x', DataType.FLOAT, ['N', 2, 3]));
    const second = graph.insertOp('Transpose', [x], [intsAttribute('perm', [1, 0, 2])], 'second');
    const shape = graph.addInitializer(makeTensor('shape', DataType.INT64, [2], [-1, 3]));
    const folded = graph.insertOp('Reshape', [x, shape], [], 'folded');
    graph.insertOp('Shape', [folded], [], 'sizes');
    const mean = graph.insertOp('Abs', [x], [], 'abs');
    for (const value of [second, folded, mean, graph.mustGet('sizes')]) exposeValue(graph, value);
    return graph.toModel();
  }

  it('takes the samples out of every layout, whatever the batches', async () => {
    const values = normals(7 * 6, 3);
    const batches = (size: number) =>
      async function* () {
        for (let from = 0; from < 7; from += size) {
          const count = Math.min(size, 7 - from);
          const data = values.slice(from * 6, (from + count) * 6);
          yield await Promise.resolve({ feeds: { x: float([count, 2, 3], data) }, size: count });
        }
      };
    const model = layoutsModel();
    const maker = await openGramMaker(engine);
    const expected = centred(await maker.of({ samples: 7, width: 6, values }));
    const absolute = centred(await maker.of({ samples: 7, width: 6, values: values.map(Math.abs) }));
    await maker.release();
    for (const size of [7, 3]) {
      const names = ['second', 'folded', 'abs', 'sizes'];
      const progress: number[] = [];
      const grams = await gatherFeatureGrams(
        { engine, model, values: names, batches: batches(size), samples: 7 },
        { onProgress: ({ done }) => progress.push(done) },
      );
      expect([...grams.keys()]).toEqual(['second', 'folded', 'abs']);
      for (const name of ['second', 'folded']) expect(linearCka(grams.get(name)!, expected)).toBeCloseTo(1, 10);
      expect(linearCka(grams.get('abs')!, absolute)).toBeCloseTo(1, 10);
      expect(linearCka(grams.get('abs')!, expected)).toBeLessThan(0.999);
      expect(progress.at(-1)).toBe(7);
    }
  });

  it('ends on abort', async () => {
    const model = layoutsModel();
    const batches = async function* () {
      yield await Promise.resolve({ feeds: { x: float([1, 2, 3], normals(6, 1)) }, size: 1 });
    };
    const request = { engine, model, values: ['abs'], batches, samples: 1 };
    await expect(gatherFeatureGrams(request, { signal: AbortSignal.abort() })).rejects.toMatchObject({
      code: 'aborted',
    });
  });
});

describe('joinFeatures', () => {
  it('puts rows behind each other', () => {
    const part = (values: number[]) => ({ samples: values.length / 2, width: 2, values: Float32Array.from(values) });
    expect(joinFeatures([part([1, 2]), part([3, 4, 5, 6])])).toEqual(part([1, 2, 3, 4, 5, 6]));
  });
});
