/** Every architecture builds, is valid, runs, and starts at a sane scale; what makes the families what they are holds. */
import fc from 'fast-check';
import type { ModelProto } from 'onnx-buf';
import { describe, expect, it } from 'vitest';
import { GRADIENT_RULES } from '../autodiff/registry.js';
import { findAttention } from '../flow/attention.js';
import { Graph, rewrite } from '../onnx/graph.js';
import { findLayers } from '../onnx/layers.js';
import { shortcutToConv } from '../onnx/passes/shortcut-to-conv.js';
import { toBytes } from '../onnx/to-bytes.js';
import { validateModel } from '../onnx/validate.js';
import { declaredDims } from '../onnx/value-info.js';
import type { Feeds, HostTensor } from '../runtime/engine.js';
import { traceValues } from '../runtime/trace.js';
import { engine, opsOf, run } from '../testing/graph-writing.js';
import { smallNetwork, smallOptions, zooFeeds } from '../testing/zoo-models.js';
import type { Architecture } from './architecture.js';
import { Net } from './net.js';
import { resolveSettings, type ZooOptions } from './options.js';
import { ARCHITECTURES, findArchitecture } from './registry.js';

const numbers = (tensor: HostTensor): number[] => Array.from<number | bigint, number>(tensor.data, Number);

function deviation(values: readonly number[]): number {
  const mean = values.reduce((a, b) => a + b, 0) / values.length;
  return Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length);
}

describe('every architecture', () => {
  it.each(ARCHITECTURES.map(({ name }) => name))('%s is valid, runs, and starts at a sane scale', async (name) => {
    const model = smallNetwork(name);
    validateModel(model, { requireSorted: true });
    expect(model.graph!.input.map((input) => input.name)).toEqual(['input']);
    const session = await engine.createSession(toBytes(model));
    try {
      for (const rows of [1, 2]) {
        const results = await session.run(zooFeeds(model, rows));
        for (const info of model.graph!.output) {
          const output = results[info.name]!;
          expect(output.dims).toEqual(declaredDims(info)!.map((dim) => (dim === 'N' ? rows : dim)));
          const values = numbers(output);
          expect(values.every(Number.isFinite)).toBe(true);
          if (info.name === 'logits' && values.length > 4) {
            expect(deviation(values)).toBeGreaterThan(0.01);
            expect(deviation(values)).toBeLessThan(10);
          }
        }
      }
    } finally {
      await session.release();
    }
  });

  it('names every node and gives every tensor a use', () => {
    for (const architecture of ARCHITECTURES) {
      const net = new Net({ seed: 0, hollow: true });
      architecture.build(net, resolveSettings(architecture, smallOptions(architecture)));
      const nodes = net.graph.nodes;
      expect(new Set(nodes.map((node) => node.name)).size).toBe(nodes.length);
      expect(nodes.every((node) => node.name !== '')).toBe(true);
      expect([...net.graph.values()].filter((v) => v.isInitializer && v.uses.size === 0)).toEqual([]);
    }
  });

  it('has the size, channels and classes that were asked for, at any width', () => {
    const any = fc.record({
      architecture: fc.constantFrom(...ARCHITECTURES),
      width: fc.double({ min: 0.1, max: 1.5, noNaN: true }),
      classes: fc.integer({ min: 1, max: 30 }),
      channels: fc.integer({ min: 1, max: 5 }),
      factor: fc.integer({ min: 1, max: 3 }),
    });
    fc.assert(
      fc.property(any, ({ architecture, width, classes, channels, factor }) => {
        const { name } = architecture;
        const given = smallOptions(architecture, { width, classes, channels });
        if (!name.startsWith('dcgan')) given.inputSize = (given.inputSize ?? 1) * factor;
        const net = new Net({ seed: 0, hollow: true });
        architecture.build(net, resolveSettings(architecture, given));
        const [, ...input] = declaredDims(net.graph.inputs[0]!.info)!;
        const [, ...output] = declaredDims(net.graph.outputs[0]!.info)!;
        const { inputSize } = given;
        if (input.length === 3) expect(input).toEqual([channels, inputSize, inputSize]);
        if (output.length === 3) expect(output[0]).toBe(name === 'unet' ? classes : channels);
        if ('classes' in architecture.defaults && name !== 'unet') expect(output).toEqual([classes]);
      }),
      { numRuns: 60 },
    );
  });

  it('is made of operators that can be trained', () => {
    const operators = new Set(
      ARCHITECTURES.flatMap((architecture) => {
        const net = new Net({ seed: 0, hollow: true });
        architecture.build(net, resolveSettings(architecture, smallOptions(architecture)));
        return net.graph.nodes.map((node) => node.opType);
      }),
    );
    // Of shapes and masks: no parameter is behind them.
    const aside = ['Shape', 'Equal', 'Not', 'Cast', 'ConstantOfShape', 'Trilu'];
    expect([...operators].filter((op) => !(op in GRADIENT_RULES) && !aside.includes(op))).toEqual([]);
  });

  it('has the same bytes for the same seed, and others for another', () => {
    for (const name of ['resnet8', 'vit-ti', 'gpt-mini']) {
      const bytes = (seed: number): Buffer => Buffer.from(toBytes(smallNetwork(name, { seed })));
      expect(bytes(5).equals(bytes(5))).toBe(true);
      expect(bytes(5).equals(bytes(6))).toBe(false);
    }
  });
});

describe('convolutional networks', () => {
  it('keep BatchNormalization and Dropout as nodes', () => {
    expect(opsOf(smallNetwork('vgg11-bn')).filter((op) => op === 'BatchNormalization')).toHaveLength(8);
    expect(opsOf(smallNetwork('vgg11')).filter((op) => op === 'Dropout')).toHaveLength(2);
    expect(opsOf(smallNetwork('vgg11', { dropout: 0 }))).not.toContain('Dropout');
    expect(opsOf(smallNetwork('resnet8')).filter((op) => op === 'BatchNormalization')).toHaveLength(7);
  });

  it('round the channels of MobileNets to multiples of eight', () => {
    fc.assert(
      fc.property(
        fc.constantFrom('mobilenet-v2', 'mobilenet-v3-small'),
        fc.double({ min: 0.2, max: 2, noNaN: true }),
        (name, width) => {
          const net = new Net({ seed: 0, hollow: true });
          const architecture = findArchitecture(name)!;
          architecture.build(net, resolveSettings(architecture, { width, inputSize: 32 }));
          for (const node of net.graph.nodes) {
            if (node.is('Conv')) expect(net.dims(node.outputs[0]!)[1]! % 8).toBe(0);
          }
        },
      ),
      { numRuns: 10 },
    );
  });

  it('have the shortcut that the compressor knows', async () => {
    const model = smallNetwork('resnet20', { inputSize: 8 });
    const traced = await traceValues(engine, model, zooFeeds(model, 1));
    const folded = rewrite(model, (graph) => {
      expect(shortcutToConv(graph, (value) => traced.get(value.name)?.dims)).toBe(2);
    });
    const input = zooFeeds(model, 2);
    const [before, after] = [await run(model, input), await run(folded, input)];
    expect(numbers(after['logits']!)).toEqual(numbers(before['logits']!).map((x) => expect.closeTo(x, 4) as number));
  });

  it('compute about the same in training as in inference before any training', async () => {
    const model = smallNetwork('resnet56', { width: 1 });
    const traced = await traceValues(engine, model, zooFeeds(model, 4));
    const spreads = [...traced].flatMap(([name, value]) => (name.endsWith('bn2.out') ? deviation(numbers(value)) : []));
    expect(spreads).toHaveLength(27);
    // Normalized values have about unit variance in all depths: without the estimate it would double with every block.
    for (const spread of spreads) expect(Math.abs(Math.log2(spread))).toBeLessThan(1.5);
  });
});

describe('transformers', () => {
  const trace = (model: ModelProto): Promise<Map<string, HostTensor>> => traceValues(engine, model, zooFeeds(model, 1));

  it.each([
    ['vit-ti', 2, 1],
    ['swin-t', 12, undefined],
    ['bert-tiny', 2, undefined],
    ['gpt-mini', 2, undefined],
  ])('%s shows its heads', async (name, blocks, heads) => {
    const model = smallNetwork(name);
    const graph = new Graph(model);
    const found = findAttention(graph, findLayers(graph), await trace(model));
    expect(found.untraced).toEqual([]);
    expect(found.blocks).toHaveLength(blocks);
    if (heads !== undefined) expect(found.blocks[0]!.heads).toBe(heads);
  });

  it('gpt does not see later tokens', async () => {
    const model = smallNetwork('gpt-mini');
    const given = zooFeeds(model, 1);
    const changed: Feeds = { input: { ...given['input']!, data: (given['input']!.data as BigInt64Array).with(5, 7n) } };
    const [a, b] = [await run(model, given), await run(model, changed)].map((r) => numbers(r['logits']!));
    const seen = 5 * 40;
    expect(a!.slice(0, seen)).toEqual(b!.slice(0, seen));
    expect(a!.slice(seen)).not.toEqual(b!.slice(seen));
  });

  it('bert pays no attention to padding', async () => {
    const model = smallNetwork('bert-tiny');
    const ids = { type: 'int64', dims: [1, 6], data: BigInt64Array.of(5n, 6n, 7n, 8n, 0n, 0n) } as const;
    const traced = await traceValues(engine, model, { input: ids });
    const weights = numbers(traced.get('layers.0.attn.softmax.out')!);
    weights.forEach((weight, i) => {
      if (i % 6 >= 4) expect(weight).toBe(0);
      else expect(weight).toBeGreaterThan(0);
    });
  });

  it('swin lets no token see across the border that a shift makes', async () => {
    // Maps of 8 x 8 at first: four windows of 4 x 4, shifted by 2 in the second block.
    const traced = await trace(smallNetwork('swin-t'));
    const weights = traced.get('layers.0.blocks.1.attn.softmax.out')!;
    const [, windows, heads, tokens] = weights.dims as [number, number, number, number];
    expect([windows, tokens]).toEqual([4, 16]);
    const values = numbers(weights);
    const size = heads * tokens * tokens;
    const zeros = [0, 1, 2, 3].map(
      (w) => values.slice(w * size, (w + 1) * size).filter((v) => v < 1e-20).length / heads,
    );
    // The first window is whole; the next two have two halves, the last one four quarters.
    expect(zeros).toEqual([0, 128, 128, 192]);
  });
});

describe('options', () => {
  const refused = (name: string, options: ZooOptions): (() => unknown) => {
    return () => resolveSettings(findArchitecture(name)!, options, (option) => `--${option}`);
  };
  it.each<[string, ZooOptions, RegExp]>([
    ['resnet20', { patchSize: 4 }, /^--patchSize: resnet20 has no such option/],
    ['resnet20', { classes: 0 }, /^--classes: .*>=1 \(given: 0\)/],
    ['resnet20', { width: 0 }, /^--width: /],
    ['resnet20', { seed: -1 }, /^--seed: /],
    ['resnet20', { dropout: 0.5 }, /^--dropout: resnet20 has no/],
    ['vgg16', { dropout: 1 }, /^--dropout: .*<1/],
    ['vgg16', { inputSize: 16 }, /^--inputSize: 16 is too small.*the smallest is 32/],
    ['unet', { inputSize: 40 }, /^--inputSize: 40 is not a multiple of 16/],
    ['vit-ti', { inputSize: 30 }, /^--inputSize: 30 is not a multiple of the patch size 16/],
    ['dcgan-generator', { inputSize: 48 }, /^--inputSize: 48 is not a power of two/],
    ['swin-t', { inputSize: 352 }, /^--inputSize: 352 leaves maps of 11 x 11/],
  ])('%s refuses %j', (name, options, message) => {
    expect(refused(name, options)).toThrow(message);
    expect(refused(name, options)).toThrow(expect.objectContaining({ code: 'bad-input', hint: expect.anything() }));
  });

  it('suggests sizes that work', () => {
    for (const architecture of ARCHITECTURES) {
      for (let inputSize = 1; inputSize < 80; inputSize++) {
        const hint = resolveOrHint(architecture, { inputSize });
        const [suggested] = /\d+/.exec(hint ?? '') ?? [];
        if (suggested) expect(resolveOrHint(architecture, { inputSize: Number(suggested) })).toBeUndefined();
      }
    }
  });
});

function resolveOrHint(architecture: Architecture, options: ZooOptions): string | undefined {
  try {
    resolveSettings(architecture, options);
    return undefined;
  } catch (error) {
    return error instanceof Error && 'hint' in error ? String(error.hint) : '';
  }
}
