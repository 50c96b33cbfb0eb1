import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { ModelProto } from 'onnx-buf';
import { intAttribute } from '../../onnx/attributes.js';
import { Graph } from '../../onnx/graph.js';
import { findLayers, fromMatrix, weightMatrix } from '../../onnx/layers.js';
import { engine, info, op, tensorFeed, tinyModel, weights } from '../../testing/graph-writing.js';
import { normals, tinyResNet } from '../../testing/tiny-models.js';
import { readParameters, withParameters } from '../../training/parameters.js';
import { runOnce } from '../../runtime/run-once.js';
import { traceValues } from '../../runtime/trace.js';
import { quantizedValues } from '../execution/quantized-values.js';
import type { QuantizationOutcome } from '../method.js';
import type { Deployment } from '../placement.js';
import { dequantize, roundLayerNearest, roundLayerToCodebook } from '../round-layer.js';
import { simulate } from '../simulate.js';
import { trainableQuantized } from './trainable.js';

/** Every layer rounded to the nearest level, with widths in turn and codebooks where a width is negative; a corrected bias in every second one that has a bias. */
function rounded(model: ModelProto, widths: readonly number[], int8: readonly string[]): QuantizationOutcome {
  const graph = new Graph(model);
  const outcome: QuantizationOutcome = { weights: new Map(), activations: new Map(), findings: [] };
  const shared = new Map<string, number>();
  for (const [i, layer] of findLayers(graph).entries()) {
    const bits = shared.get(layer.weight.name) ?? widths[i % widths.length]!;
    shared.set(layer.weight.name, bits);
    const matrix = weightMatrix(graph, layer);
    const { grid, codes, scales } =
      bits < 0 ? roundLayerToCodebook(layer, matrix, -bits) : roundLayerNearest(layer, matrix, bits, true);
    const corrected = i % 2 === 0 && layer.biasSlot?.node.inputs[layer.biasSlot.index];
    outcome.weights.set(layer.name, {
      grid,
      codes,
      scales,
      ...(corrected && { bias: normals(layer.channels, i + 50) }),
    });
    outcome.findings.push({ name: layer.name, bits, sqnrDb: 10 });
  }
  for (const { value } of quantizedValues(graph, new Set(int8)))
    outcome.activations.set(value.name, { scale: 0.05, zeroPoint: 100 });
  return outcome;
}

function planOf(outcome: QuantizationOutcome, int8: readonly string[]): Deployment {
  return { weights: outcome.weights, activations: outcome.activations, int8: new Set(int8) };
}

/** A weight that two layers share, one of them before a bias, a transposed convolution, and a row of zeros. */
function oddModel(): ModelProto {
  const zeroRow = weights('k', [3, 3, 1, 1], 4);
  return tinyModel({
    inputs: [info('x', ['N', 3, 2, 2])],
    outputs: [info('y', ['N', 4, 4, 2])],
    nodes: [
      op('Conv x k -> a', [], 'conv'),
      op('Relu a -> r'),
      op('ConvTranspose r t u -> c', [intAttribute('group', 1)], 'up'),
      op('MatMul c w -> d', [], 'first'),
      op('Add d b -> e'),
      op('MatMul e w -> y', [], 'second'),
    ],
    initializers: [
      { ...zeroRow, rawData: zeroRow.rawData.map((byte, i) => (i < 12 ? 0 : byte)) },
      weights('t', [3, 4, 3, 1], 5),
      weights('u', [4], 6),
      weights('w', [2, 2], 7),
      weights('b', [2], 8),
    ],
  });
}

interface Subject {
  readonly model: ModelProto;
  readonly int8: readonly string[];
  readonly dims: readonly number[];
}

const SUBJECTS: readonly Subject[] = [
  { model: tinyResNet(), int8: ['stem.y', 'block.a.y', 'block.b.y', 'block.sum'], dims: [2, 3, 8, 8] },
  { model: tinyResNet(), int8: [], dims: [2, 3, 8, 8] },
  { model: oddModel(), int8: [], dims: [2, 3, 2, 2] },
];
const WIDTHS = [3, -3, 8, -2, 4];

/** No running statistics. */
const NONE = { slots: [], values: new Float32Array() };

describe('the trainable form of a quantized model', () => {
  it.each(SUBJECTS)('begins with the codes, scales and biases that it was made of ($int8)', ({ model, int8 }) => {
    const outcome = rounded(model, WIDTHS, int8);
    const trainable = trainableQuantized(model, planOf(outcome, int8), outcome);
    const found = trainable.of(readParameters(trainable.model, trainable.parameters), NONE);
    expect([...found.weights.keys()].sort()).toEqual([...outcome.weights.keys()].sort());
    for (const [name, { codes, scales, grid, bias }] of outcome.weights) {
      const mine = found.weights.get(name)!;
      expect(mine.grid).toEqual(grid);
      mine.codes.forEach((code, i) => {
        if (scales[Math.floor((i * scales.length) / codes.length)]! > 0) expect(code).toBe(codes[i]);
      });
      mine.scales.forEach((scale, c) => {
        expect(scale).toBeGreaterThan(0);
        expect(Math.abs(scale - scales[c]!)).toBeLessThan(1e-6 * scale + 1e-11);
      });
      if (bias) mine.bias!.forEach((b, c) => expect(b).toBeCloseTo(bias[c]!, 5));
    }
    expect(found.findings.every(({ sqnrDb }) => sqnrDb === undefined)).toBe(true);
  });

  it.each(SUBJECTS)(
    'computes what the file of its parameters computes, wherever they went ($int8)',
    async (subject) => {
      const { model, int8, dims } = subject;
      const outcome = rounded(model, WIDTHS, int8);
      const trainable = trainableQuantized(model, planOf(outcome, int8), outcome);
      const start = readParameters(trainable.model, trainable.parameters);
      const x = tensorFeed(dims);
      const layers = findLayers(new Graph(model));
      const readers = new Map(new Graph(trainable.model).nodes.map((node) => [node.name, node]));
      await fc.assert(
        fc.asyncProperty(fc.nat(), fc.double({ min: 0, max: 2, noNaN: true }), async (seed, size) => {
          const noise = normals(start.length, seed, size);
          const flat = start.map((v, i) => v + noise[i]! * Math.max(1, Math.abs(v)));
          const moved = withParameters(trainable.model, trainable.parameters, flat);
          const found = trainable.of(flat, NONE);
          const inputs = layers.map(({ node, weightIndex }) => readers.get(node.name)!.inputs[weightIndex]!.name);
          const traced = await traceValues(engine, moved, { x }, new Set(inputs));
          layers.forEach((layer, k) => {
            const expected = fromMatrix(layer, dequantize(layer, found.weights.get(layer.name)!));
            (traced.get(inputs[k]!)!.data as Float32Array).forEach((w, i) => {
              expect(Math.abs(w - expected[i]!)).toBeLessThanOrEqual(1e-6 * Math.max(Math.abs(w), 1e-6));
            });
          });
          const trained = await runOnce(engine, moved, { x }, { optimization: 'disabled' });
          const file = await runOnce(engine, simulate(model, planOf(found, int8)), { x }, { optimization: 'disabled' });
          for (const [name, { data }] of Object.entries(file)) {
            // Biases in 32 bits may tip the rounding of single activations.
            const tolerance = int8.length > 0 ? 0.05 : 1e-5;
            const [expected, values] = [data as Float32Array, trained[name]!.data as Float32Array];
            const energy = expected.reduce((sum, v) => sum + v * v, 1e-12);
            const error = expected.reduce((sum, v, i) => sum + (v - values[i]!) ** 2, 0);
            expect(Math.sqrt(error / energy)).toBeLessThan(tolerance);
          }
        }),
        { numRuns: 6 },
      );
    },
  );

  it('learns one tensor for a weight that layers share', () => {
    const outcome = rounded(oddModel(), WIDTHS, []);
    const { parameters } = trainableQuantized(oddModel(), planOf(outcome, []), outcome);
    expect(parameters.map(({ name, size }) => [name, size])).toEqual([
      ['k latent', 9],
      ['k scale', 3],
      ['t latent', 36],
      ['t scale', 4],
      ['u bias', 4],
      ['w latent', 4],
      ['w scale', 2],
      ['first bias', 2],
    ]);
  });
});
