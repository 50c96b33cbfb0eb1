import { describe, expect, it } from 'vitest';
import { Graph } from '../onnx/graph.js';
import { readFloats } from '../onnx/tensor.js';
import { floatStudent } from '../recovery/float-student.js';
import { normalized } from '../recovery/normalize.js';
import { runOnce } from '../runtime/run-once.js';
import { traceShapes } from '../runtime/trace.js';
import { engine, tensorFeed } from '../testing/graph-writing.js';
import { normalBatches, normals, tinyResNet } from '../testing/tiny-models.js';
import { readParameters } from '../training/parameters.js';
import { relativeDifference } from './check-cut.js';
import { cutUnits } from './cut.js';
import { layerUnits } from './layer-units.js';
import { findPruningMethod, type ShrinkingMethod } from './methods.js';
import { decayUntil, firstState, leastUnits, shrinkingStudent } from './shrinking.js';
import { dependenciesOf } from './step.js';

const WIDTH = 8;
const MODEL = tinyResNet(17, WIDTH);
const FEEDS = (rows: number) => ({ x: tensorFeed([rows, 3, 8, 8]) });
const MODEL_WITH_NORMS = await normalized({
  ...{ engine, model: MODEL, shapes: await traceShapes(engine, MODEL, FEEDS(1)), samples: 32 },
  batches: () => normalBatches('x', [3, 8, 8], 32, 16),
});
const WHOLE = floatStudent(MODEL_WITH_NORMS, 'updated');
const DEPENDENCIES = await dependenciesOf(engine, firstState(WHOLE), FEEDS, undefined);
const GROUPS = DEPENDENCIES.groups.map(({ layers }) => layers.filter((name) => name !== 'head'));
/** Two filters of one group, three of the other. */
const GOING = new Map(GROUPS.map((_, i) => [i, 2 + i]));
const FLAT = readParameters(WHOLE.model, WHOLE.parameters);
const NONE = { slots: [], values: new Float32Array() };

function studentOf(name: 'sfp' | 'swd', interval = 4) {
  const method = findPruningMethod(name) as ShrinkingMethod;
  const given = { method, model: MODEL_WITH_NORMS, student: WHOLE, dependencies: DEPENDENCIES, going: GOING };
  return shrinkingStudent({ ...given, interval, seed: 0 });
}

/** Channels of least norm by group: the mean over the layers that make them of the norm of the rows, relative to its layer. */
function leastByHand(): Map<string, number[]> {
  const graph = new Graph(MODEL);
  return new Map(
    GROUPS.flatMap((layers, i) => {
      const scores = new Array<number>(WIDTH).fill(0);
      for (const layer of layers) {
        const weights = readFloats(graph.mustGet(`${layer}.w`).initializer!);
        const size = weights.length / WIDTH;
        const norms = scores.map((_, c) => Math.hypot(...weights.subarray(c * size, (c + 1) * size)));
        const mean = norms.reduce((a, b) => a + b, 0) / WIDTH;
        norms.forEach((norm, c) => (scores[c]! += norm / mean));
      }
      const least = [...scores.keys()].sort((a, b) => scores[a]! - scores[b]!).slice(0, GOING.get(i));
      return layers.map((layer) => [layer, least.sort()] as const);
    }),
  );
}

/** Of every parameter of the student: the layer and whether it is a weight, and its elements per channel. */
function partsOf(flat: Float32Array): { layer: string; weight: boolean; rows: Float32Array[] }[] {
  let at = 0;
  return WHOLE.parameters.map(({ name, dims, size }) => {
    const values = flat.slice(at, (at += size));
    const layer = /^(stem|block\.a|block\.b|head)/.exec(name)![0];
    const count = layer === 'head' ? 1 : dims[0]!;
    const rows = Array.from({ length: count }, (_, c) => values.slice((c * size) / count, ((c + 1) * size) / count));
    return { layer, weight: dims.length > 1, rows };
  });
}

const LEAST = leastByHand();

describe('pulling filters to 0', () => {
  it('chooses those of least norm over all layers that make them', () => {
    const removed = leastUnits(firstState(WHOLE), DEPENDENCIES, GOING, 0);
    for (const { layer, made } of layerUnits(new Graph(MODEL), DEPENDENCIES)) {
      if (layer.name === 'head') continue;
      expect([...made.keys()].filter((c) => removed[made[c]!] === 1)).toEqual(LEAST.get(layer.name));
    }
    expect(LEAST.get('stem')).toEqual(LEAST.get('block.b'));
    expect([...LEAST.values()].map(({ length }) => length).sort()).toEqual([2, 2, 3]);
  });

  it('zeroes their weights, and nothing else, once an interval', () => {
    const { adjusted } = studentOf('sfp');
    for (const step of [0, 1, 2, 3, 5, 7]) expect(adjusted!(FLAT, step, step / 8)).toBeUndefined();
    const before = FLAT.slice();
    for (const step of [4, 8]) {
      const [parts, was] = [partsOf(adjusted!(FLAT, step, step / 12)!), partsOf(FLAT)];
      parts.forEach(({ layer, weight, rows }, i) => {
        rows.forEach((row, c) => {
          const zero = weight && LEAST.get(layer)?.includes(c) === true;
          if (zero) expect(row.every((v) => v === 0)).toBe(true);
          else expect(row).toEqual(was[i]!.rows[c]);
        });
      });
    }
    expect(FLAT).toEqual(before);
  });

  it('lets them decay with all that makes them, more and more', () => {
    const { adjusted } = studentOf('swd');
    const steps = 20;
    expect(adjusted!(FLAT, 0, 0)).toBeUndefined();
    let flat = FLAT;
    const factors: number[] = [];
    for (let step = 1; step < steps; step++) {
      const next = adjusted!(flat, step, step / steps)!;
      const selected = partsOf(next).findIndex(({ layer, weight }) => layer === 'stem' && weight);
      const c = LEAST.get('stem')![0]!;
      factors.push(partsOf(next)[selected]!.rows[c]![0]! / partsOf(flat)[selected]!.rows[c]![0]!);
      flat = next;
    }
    // r mu a_k grows by the same factor with every update.
    const exponents = factors.map((factor) => -Math.log(factor));
    for (let k = 5; k < exponents.length; k++)
      expect(exponents[k]! / exponents[k - 1]!).toBeCloseTo(10 ** (1 / steps), 2);
    const left = Math.exp(-decayUntil((steps - 1) / steps));
    const was = partsOf(FLAT);
    let vectors = 0;
    partsOf(flat).forEach(({ layer, weight, rows }, i) => {
      rows.forEach((row, c) => {
        const selected = LEAST.get(layer)?.includes(c) === true;
        row.forEach((v, j) => expect(v).toBeCloseTo(was[i]!.rows[c]![j]! * (selected ? left : 1), 5));
        if (selected && !weight) vectors++;
      });
    });
    // Bias, scale and shift of each.
    expect(vectors).toBe(3 * (2 + 2 + 3));
    expect(Math.exp(-decayUntil(1))).toBeCloseTo(1e-3, 9);
  });

  it.each(['sfp', 'swd'] as const)('%s: stands for what the cut will give', async (name) => {
    const student = studentOf(name);
    const noise = normals(FLAT.length, 5, 0.3);
    const flat = FLAT.map((v, i) => v + noise[i]!);
    const whole = WHOLE.of(flat, NONE);
    const removed = leastUnits(whole, DEPENDENCIES, GOING, 0);
    const cut = cutUnits(whole, { dependencies: DEPENDENCIES, removed });
    const feeds = { x: { type: 'float32' as const, dims: [2, 3, 8, 8], data: normals(2 * 192, 9) } };
    const [expected, found] = [await runOnce(engine, cut, feeds), await runOnce(engine, student.of(flat, NONE), feeds)];
    expect(relativeDifference(expected['logits']!, found['logits'])).toBeLessThan(1e-5);
    const original = await runOnce(engine, whole, feeds);
    expect(relativeDifference(original['logits']!, found['logits'])).toBeGreaterThan(0.01);
    // The next choice on that model is the same one.
    expect(leastUnits(student.of(flat, NONE), DEPENDENCIES, GOING, 0)).toEqual(removed);
  });

  it('tells checkpoints of other methods and other goals apart', () => {
    expect(studentOf('sfp').layout).not.toBe(studentOf('swd').layout);
    expect(studentOf('sfp').layout).not.toBe(WHOLE.layout);
  });
});
