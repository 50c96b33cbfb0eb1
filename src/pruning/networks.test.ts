/** Networks of the zoo, cut at random: they give what the originals with zeros give. */
import type { ModelProto } from 'onnx-buf';
import { describe, expect, it } from 'vitest';
import { prunableModel } from '../commands/prune/removable.js';
import { traceDims } from '../runtime/trace.js';
import { distance, engine, run } from '../testing/graph-writing.js';
import { cutAndCheck, stirred } from '../testing/random-cuts.js';
import { smallNetwork, zooFeeds } from '../testing/zoo-models.js';
import type { ZooOptions } from '../zoo/options.js';
import { cutUnits } from './cut.js';
import { dependencyGroups, type Dependencies } from './groups.js';
import { selectUnits } from './selection.js';

async function groupsOf(model: ModelProto): Promise<Dependencies> {
  return dependencyGroups(model, await traceDims(engine, model, zooFeeds(model, 2)));
}

describe('networks of the zoo', () => {
  const cases: [string, ZooOptions][] = [
    ['resnet20', {}],
    ['resnet20', { shortcut: 'conv' }],
    ...[
      ...['densenet121', 'mobilenet-v3-small', 'efficientnet-b0', 'shufflenet-v2', 'convnext-t', 'inception-v3'],
      ...['vit-s', 'swin-t', 'bert-base', 'gpt2', 'unet', 'vae-encoder', 'dcgan-generator'],
    ].map((name): [string, ZooOptions] => [name, {}]),
  ];
  it.each(cases)('%s %o', async (name, options) => {
    const model = stirred(smallNetwork(name, options), 4);
    const { model: prepared } = await prunableModel(engine, model, (rows) => zooFeeds(model, rows));
    const { dependencies, effect } = await cutAndCheck(prepared, zooFeeds(model, 2));
    expect(dependencies.groups.length).toBeGreaterThan(0);
    expect(effect).toBeGreaterThan(1e-3);
  });

  it('ties the padding shortcuts of option A by where the channels come to lie', async () => {
    const model = smallNetwork('resnet8', { width: 1 });
    const { groups } = await groupsOf(model);
    // 16 of all stages, the other 16 of 32 and the other 32 of 64, and the inner convolutions of three blocks.
    expect(groups.map(({ units }) => units.length).sort((a, b) => a - b)).toEqual([16, 16, 16, 32, 32, 64]);
  });

  it('lets the residual stream of a transformer go where normalization over what is left is asked for', async () => {
    const original = smallNetwork('vit-s');
    const feeds = zooFeeds(original, 2);
    const { model, shapes } = await prunableModel(engine, original, (rows) => zooFeeds(original, rows));
    const groups = (cutNormalized: boolean): Dependencies => dependencyGroups(model, shapes, { cutNormalized });
    const width = model.graph!.initializer.find(({ name }) => name.includes('norm'))!.dims[0]!;
    expect(groups(false).groups.some(({ units }) => units.length === Number(width))).toBe(false);
    const dependencies = groups(true);
    const stream = dependencies.groups.find(({ units }) => units.length === Number(width))!;
    const cut = cutUnits(model, selectUnits(dependencies, [{ group: stream.index, units: [0, 5] }]));
    const { logits } = await run(cut, feeds);
    expect([...(logits!.data as Float32Array)].every(Number.isFinite)).toBe(true);
  });

  it('rewrites channel shuffles so that single channels can go', async () => {
    const model = smallNetwork('shufflenet-v2');
    const { model: prepared } = await prunableModel(engine, model, (rows) => zooFeeds(model, rows));
    const feeds = zooFeeds(model, 3);
    expect(distance(await run(model, feeds), await run(prepared, feeds))).toBeLessThan(1e-6);
    const count = async (each: ModelProto): Promise<number> => {
      const { groups } = await groupsOf(each);
      return groups.reduce((sum, { units }) => sum + units.length, 0);
    };
    expect(prepared.graph!.node.filter(({ opType }) => opType === 'Gather')).toHaveLength(16);
    expect(await count(prepared)).toBeGreaterThan(await count(model));
  });
});
