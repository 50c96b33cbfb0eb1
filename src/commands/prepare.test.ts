import { describe, expect, it } from 'vitest';
import { nodeEngine } from '../node/onnxruntime.js';
import { Graph, rewrite } from '../onnx/graph.js';
import { makeTensor } from '../onnx/tensor.js';
import { DataType } from '../onnx/dtypes.js';
import type { Feeds } from '../runtime/engine.js';
import { convNet } from '../testing/tiny-net.js';
import { firstDifference, PREPARATION, prepareModel, type PreparationPass } from './prepare.js';

const engine = nodeEngine({ threads: 1 });

function feedsFor(rows: number): Feeds {
  const data = Float32Array.from({ length: rows * 192 }, (_, i) => Math.sin(i));
  return { image: { type: 'float32', dims: [rows, 3, 8, 8], data } };
}

/** Doubles the last bias: every output changes. */
const harmful: PreparationPass = {
  name: 'harmful',
  run: (model) =>
    rewrite(model, (graph) => {
      graph.setInitializer(graph.mustGet('b4'), makeTensor('b4', DataType.FLOAT, [5], [9, 9, 9, 9, 9]));
    }),
};
const failing: PreparationPass = {
  name: 'failing',
  run: () => {
    throw new Error('does not like this model');
  },
};

describe('prepareModel', () => {
  it('folds what it can and keeps the outputs', async () => {
    const model = convNet();
    const prepared = await prepareModel(engine, model, feedsFor);
    expect(prepared.warnings).toEqual([]);
    expect(prepared.applied).toEqual(PREPARATION.map((pass) => pass.name));
    const ops = new Graph(prepared.model).nodes.map((node) => node.opType);
    expect(ops).not.toContain('BatchNormalization');
    const [before, after] = await Promise.all(
      [model, prepared.model].map(async (one) => {
        const { toBytes } = await import('../onnx/to-bytes.js');
        const session = await engine.createSession(toBytes(one));
        const results = await session.run(feedsFor(3));
        await session.release();
        return results;
      }),
    );
    expect(firstDifference(before, after)).toBeUndefined();
  });

  it('leaves out a pass that changes the outputs or fails, by name, and keeps the others', async () => {
    const [upgrade, inline, fold] = PREPARATION;
    const prepared = await prepareModel(engine, convNet(), feedsFor, {
      passes: [upgrade, harmful, inline, failing, fold],
    });
    expect(prepared.applied).toEqual(['upgrade-opset', 'inline-constants', 'fold-batch-norm']);
    expect(prepared.warnings).toHaveLength(2);
    expect(prepared.warnings[0]).toMatch(/harmful.*output scores differs/);
    expect(prepared.warnings[1]).toMatch(/failing.*does not like this model/);
    expect(new Graph(prepared.model).nodes.map((node) => node.opType)).not.toContain('BatchNormalization');
  });

  it('stops on abort', async () => {
    const controller = new AbortController();
    controller.abort();
    await expect(prepareModel(engine, convNet(), feedsFor, { signal: controller.signal })).rejects.toMatchObject({
      code: 'aborted',
    });
  });
});

describe('firstDifference', () => {
  const y = (...values: number[]) => ({
    y: { type: 'float32' as const, dims: [values.length], data: Float32Array.from(values) },
  });

  it('allows 1e-4 of the largest value, and the same NaN', () => {
    expect(firstDifference(y(100, 1, NaN), y(100, 1.009, NaN))).toBeUndefined();
    expect(firstDifference(y(100, 1), y(100, 1.02))).toMatch(/differs by 0.0200/);
    expect(firstDifference(y(1, 2), y(1, NaN))).toMatch(/differs/);
    expect(firstDifference(y(1, 2), y(1))).toMatch(/became float32 \[1\]/);
    expect(firstDifference(y(1), {})).toMatch(/is gone/);
  });
});
