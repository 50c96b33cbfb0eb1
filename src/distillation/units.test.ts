import { describe, expect, it } from 'vitest';
import type { ModelProto } from 'onnx-buf';
import { findBlocks } from '../flow/blocks.js';
import { blockChangeProbe, mappedProbe, sameShapeProbe, type ChangeProbe } from '../flow/change.js';
import { Graph } from '../onnx/graph.js';
import { findLayers } from '../onnx/layers.js';
import { runProbes } from '../runtime/probe.js';
import { exposeValue } from '../runtime/trace.js';
import { blockNet, chainNet, feedOf, tinySide, tokenNet } from '../testing/distillation-models.js';
import { engine, run } from '../testing/graph-writing.js';
import { tinyResNet } from '../testing/tiny-models.js';
import { meanChanges } from './changes.js';
import { fitMaps, needsMap } from './maps.js';
import { attachChange, type FlowUnit } from './units.js';

const SAMPLES = 48;

/** Three batches, the last one padded. */
async function* batchesFor(model: ModelProto) {
  for (const [at, size] of [20, 20, 8].entries())
    yield await Promise.resolve({ feeds: feedOf(model, 20, 30 + at), size });
}

/** Means of the probes of `flow/change.ts`, which compute norms outside the engine. */
async function byProbes(model: ModelProto, units: readonly FlowUnit[]): Promise<number[]> {
  const { shapes } = await tinySide(model);
  const graph = new Graph(model);
  const blocks = new Map(findBlocks(graph, findLayers(graph)).map((block) => [block.name, block]));
  const maps = await fitMaps({ engine, model, shapes, units, batches: () => batchesFor(model), samples: SAMPLES });
  const probes = units.map(({ name, change }): ChangeProbe => {
    if (change.kind === 'block') return blockChangeProbe(blocks.get(name)!);
    return change.step.kind === 'same' ? sameShapeProbe(change.step) : mappedProbe(change.step, maps.get(name)!);
  });
  await runProbes({ engine, model, shapes, batches: batchesFor(model), probes, total: SAMPLES, stage: 'flow' });
  return probes.map((probe) => probe.result()!);
}

describe('flowUnits', () => {
  it('are the residual blocks where there are some, behind their activation', async () => {
    const { units } = await tinySide(blockNet(3, 2, 1));
    expect(units.map(({ kind, depth }) => [kind, depth])).toEqual([
      ['block', 0],
      ['block', 0.5],
      ['block', 1],
    ]);
    const [only] = (await tinySide(tinyResNet())).units;
    expect(only).toMatchObject({ depth: 1, value: 'block.out', dims: [8, 8, 8], channelAxis: 0 });
    expect(only!.change).toEqual({ kind: 'block', branch: 'block.b.y', output: 'block.sum', dims: [8, 8, 8] });
  });

  it('are the layers with one before them where there are no blocks', async () => {
    const { units } = await tinySide(chainNet(3, 1));
    expect(units.map(({ kind, dims }) => [kind, dims])).toEqual([
      ['Conv', [4, 2, 2]],
      ['Conv', [4, 2, 2]],
    ]);
    expect(units.map(needsMap)).toEqual([true, false]);
  });

  it('of tokens have their channels last', async () => {
    const { units } = await tinySide(tokenNet(2, 4, 1));
    expect(units.map(({ dims, channelAxis }) => [dims, channelAxis])).toEqual([
      [[3, 4], 1],
      [[3, 4], 1],
    ]);
  });
});

describe('flowChange of a unit', () => {
  it.each<[string, ModelProto]>([
    ['blocks', blockNet(2, 2, 1)],
    ['layers, mapped and not', chainNet(3, 1)],
    ['tokens', tokenNet(2, 4, 1)],
  ])('is that of the profile: %s', async (_, model) => {
    const side = await tinySide(model);
    const request = { engine, ...side, batches: () => batchesFor(model), samples: SAMPLES };
    const found = await meanChanges({ ...request, maps: await fitMaps(request) });
    const wanted = await byProbes(model, side.units);
    expect(Math.min(...wanted)).toBeGreaterThan(0.05);
    found.forEach((change, i) => {
      expect(change! / wanted[i]!).toBeCloseTo(1, 4);
    });
  });

  it('is the same through maps that are fed, sample by sample', async () => {
    const side = await tinySide(chainNet(3, 1));
    const request = { engine, ...side, batches: () => batchesFor(side.model), samples: SAMPLES };
    const [unit] = side.units;
    const map = (await fitMaps(request)).get(unit!.name)!;
    const valueOf = async (how: typeof map | 'fed'): Promise<unknown> => {
      const graph = new Graph(side.model);
      const { value, inputs } = attachChange(graph, unit!, how);
      graph.outputs.length = 0;
      exposeValue(graph, value);
      graph.removeDead();
      const fed = inputs && {
        [inputs.matrix]: { type: 'float32' as const, dims: [4, 3], data: map.matrix },
        [inputs.bias]: { type: 'float32' as const, dims: [4, 1], data: map.bias },
      };
      return Object.values(await run(graph.toModel(), { ...feedOf(side.model, 6), ...fed }))[0]!;
    };
    const fed = await valueOf('fed');
    expect(fed).toEqual(await valueOf(map));
    expect(fed).toMatchObject({ dims: [6] });
  });

  it('has no map where samples are too few to fit one, and no flow is known then', async () => {
    const side = await tinySide(chainNet(3, 1));
    // 4 positions per sample, 12 needed for 3 channels.
    const one = { engine, ...side, samples: 1 };
    const batches = async function* () {
      yield await Promise.resolve({ feeds: feedOf(side.model, 1), size: 1 });
    };
    const maps = await fitMaps({ ...one, batches });
    expect(maps.size).toBe(0);
    const [mapped, same] = await meanChanges({ ...one, maps, batches });
    expect(mapped).toBeUndefined();
    expect(same).toBeGreaterThan(0);
  });
});
