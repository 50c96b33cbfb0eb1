import type { ModelProto } from 'onnx-buf';
import { describe, expect, it } from 'vitest';
import { nodeEngine } from '../../node/onnxruntime.js';
import { rewrite } from '../../onnx/graph.js';
import { toBytes } from '../../onnx/to-bytes.js';
import { makeTensor, readFloats } from '../../onnx/tensor.js';
import { runOnce } from '../../runtime/run-once.js';
import { normalBatches, normals, tinyResNet } from '../../testing/tiny-models.js';
import { judgeAlternatives, type JudgedAlternative } from './accuracy.js';
import { executionSessions } from './sessions.js';

const engine = nodeEngine({ threads: 1 });

/** The model with noise of that size in its class head. */
function disturbed(model: ModelProto, size: number): ModelProto {
  return rewrite(model, (graph) => {
    const value = graph.mustGet('head.w');
    const weights = readFloats(value.initializer!);
    const noise = normals(weights.length, 77, size);
    graph.setInitializer(
      value,
      makeTensor(
        'head.w',
        1,
        [5, 8],
        weights.map((w, i) => w + noise[i]!),
      ),
    );
  });
}

/** The model with its class head and its bias times a number. */
function scaled(model: ModelProto, factor: number): ModelProto {
  return rewrite(model, (graph) => {
    for (const name of ['head.w', 'head.b']) {
      const tensor = graph.mustGet(name).initializer!;
      const weights = readFloats(tensor).map((w) => w * factor);
      graph.setInitializer(graph.mustGet(name), makeTensor(name, 1, tensor.dims.map(Number), weights));
    }
  });
}

describe('judgeAlternatives', () => {
  it('keeps what stays near the original or near the float execution, and refuses the rest', async () => {
    const model = tinyResNet();
    const { feeds } = (await normalBatches('x', [3, 8, 8], 8, 8).next()).value!;
    const noiseOf: Record<string, number> = { float: 0.001, near: 0.01, far: 3 };
    const build = (int8: ReadonlySet<string>): ModelProto => disturbed(model, noiseOf[[...int8][0] ?? 'float']!);
    const alternatives = ['float', 'near', 'far'].map((name) => ({
      name,
      int8: new Set(name === 'float' ? [] : [name]),
    }));
    const original = await engine.createSession(toBytes(model));
    const reference = await original.run(feeds);
    await original.release();
    const judge = async (): Promise<JudgedAlternative[]> => {
      const sessions = executionSessions(engine, build);
      try {
        return await judgeAlternatives(sessions, reference, alternatives, feeds, model.graph!.output[0]!.name);
      } finally {
        await sessions.closeAll();
      }
    };
    const judged = await judge();
    expect(judged.map((a) => a.acceptable)).toEqual([true, true, false]);
    expect(judged[2]!.divergence).toBeGreaterThan(judged[1]!.divergence);

    // Where the weights alone already move the outputs, as much again is no reason to refuse.
    noiseOf['float'] = 3;
    const lenient = await judge();
    expect(lenient.map((a) => a.acceptable)).toEqual([true, true, true]);
  });

  it('accepts a squared error of 0.2 % of the energy of outputs that are no classes', async () => {
    const model = tinyResNet();
    const { feeds } = (await normalBatches('x', [3, 8, 8], 8, 8).next()).value!;
    const reference = await runOnce(engine, model, feeds);
    const errorOf: Record<string, number> = { below: 0.0019, above: 0.0021 };
    // Outputs (1 + e) y are off by e^2 of their energy.
    const build = (int8: ReadonlySet<string>): ModelProto => scaled(model, 1 + Math.sqrt(errorOf[[...int8][0]!] ?? 0));
    const alternatives = ['float', 'below', 'above'].map((name) => ({
      name,
      int8: new Set(name === 'float' ? [] : [name]),
    }));
    const sessions = executionSessions(engine, build);
    try {
      const judged = await judgeAlternatives(sessions, reference, alternatives, feeds, undefined);
      expect(judged.map((a) => a.acceptable)).toEqual([true, true, false]);
      expect(judged[1]!.divergence).toBeCloseTo(0.0019, 5);
    } finally {
      await sessions.closeAll();
    }
  });
});
