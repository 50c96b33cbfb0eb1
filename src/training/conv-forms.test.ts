import { describe, expect, it } from 'vitest';
import { chooseForms, inputForms, weightForms, type ConvShape } from '../autodiff/rules/conv-shape.js';
import { Graph } from '../onnx/graph.js';
import type { Engine } from '../runtime/engine.js';
import { layoutBlock } from '../runtime/layout-block.js';
import { engine, info, op, tinyModel } from '../testing/graph-writing.js';
import { intsAttribute } from '../onnx/attributes.js';
import { confirmedForms, convShapesOf, fastestForms, measuredForms, timeForms, type FormTime } from './conv-forms.js';

const block = await layoutBlock(engine);

/** Worth measuring: 37 million products. */
const shape: ConvShape = {
  ...{ inChannels: 16, outChannels: 16, groups: 1, input: [16, 16], output: [16, 16], kernel: [3, 3] },
  ...{ strides: [1, 1], dilations: [1, 1], padBegin: [1, 1], padEnd: [1, 1], samples: 64, block },
};

const shut: Engine = {
  ...engine,
  createSession: () => Promise.reject(new Error('nothing was to be measured')),
};

function memory(): { key: string; cache: Cache; texts: Map<string, string> } {
  const texts = new Map<string, string>();
  const cache: Cache = {
    read: (key) => Promise.resolve(texts.get(key)),
    write: (key, text) => Promise.resolve(void texts.set(key, text)),
  };
  return { key: 'here', cache, texts };
}
type Cache = Parameters<typeof measuredForms>[2]['cache'];

describe('forms of convolution gradients', () => {
  it('are all timed', async () => {
    for (const each of [shape, { ...shape, block: undefined }]) {
      const times = await timeForms(engine, each, 1);
      const of = (kind: FormTime['of']): string[] => times.filter((time) => time.of === kind).map(({ form }) => form);
      expect(of('input').sort()).toEqual([...inputForms(each)].sort());
      expect(of('weight').sort()).toEqual([...weightForms(each)].sort());
      for (const { milliseconds } of times) expect(milliseconds).toBeGreaterThan(0);
    }
  });

  it('are not tried where they would copy gigabytes', async () => {
    const large = { kernel: [64, 64], input: [128, 128], output: [65, 65], padBegin: [0, 0], padEnd: [0, 0] };
    const wide = { ...shape, ...large, samples: 1, outChannels: 1 };
    const forms = (await timeForms(engine, wide, 0)).map(({ form }) => form);
    expect(forms).toContain(chooseForms(wide).input);
    expect(forms).not.toContain('columns-flat');
  });

  it('stay the default ones unless others are clearly faster', () => {
    const plain = { ...shape, block: undefined };
    const { input, weight } = chooseForms(plain);
    const times = (other: number): FormTime[] => [
      { of: 'input', form: input, milliseconds: 10 },
      { of: 'input', form: 'conv-transpose', milliseconds: other },
      { of: 'weight', form: weight, milliseconds: 10 },
      { of: 'weight', form: 'taps', milliseconds: other },
    ];
    expect(fastestForms(plain, times(9))).toEqual({ input, weight });
    expect(fastestForms(plain, times(8))).toEqual({ input: 'conv-transpose', weight: 'taps' });
  });

  it('other than the default ones are believed when two measurements agree', async () => {
    const plain = { ...shape, block: undefined };
    const standard = chooseForms(plain);
    const chosen = async (...rounds: (readonly [input: number, weight: number])[]) => {
      const left = [...rounds];
      const forms = await confirmedForms(plain, () => {
        const [input, weight] = left.shift()!;
        return Promise.resolve([
          { of: 'input', form: standard.input, milliseconds: 10 },
          { of: 'input', form: 'conv-transpose', milliseconds: input },
          { of: 'weight', form: standard.weight, milliseconds: 10 },
          { of: 'weight', form: 'taps', milliseconds: weight },
        ]);
      });
      return [forms.input, forms.weight, left.length];
    };
    expect(await chosen([1, 1], [1, 1])).toEqual(['conv-transpose', 'taps', 0]);
    expect(await chosen([1, 1], [20, 1])).toEqual([standard.input, 'taps', 0]);
    expect(await chosen([1, 1], [1, 20])).toEqual(['conv-transpose', standard.weight, 0]);
    expect(await chosen([20, 20], [1, 1])).toEqual([standard.input, standard.weight, 1]);
  });

  it('are measured once per machine', async () => {
    const machine = memory();
    const events: number[] = [];
    const chosen = await measuredForms(engine, [shape], machine, { onProgress: ({ done }) => events.push(done) });
    expect(machine.texts.size).toBe(1);
    expect(events).toEqual([0]);
    const again = await measuredForms(shut, [{ ...shape }], machine);
    expect(again(shape)).toEqual(chosen(shape));
    await expect(measuredForms(shut, [{ ...shape, samples: 128 }], machine)).rejects.toThrow('nothing was to be');
    await expect(measuredForms(shut, [shape], { ...machine, key: 'there' })).rejects.toThrow('nothing was to be');
  });

  it.each(['no JSON', '{}', '{"input":"matmul","weight":"taps"}', '{"input":"conv-transpose","weight":"unheard of"}'])(
    'are measured again where the memory holds %s',
    async (text) => {
      const machine = memory();
      const cache = { ...machine.cache, read: () => Promise.resolve(text) };
      await expect(measuredForms(shut, [shape], { ...machine, cache })).rejects.toThrow('nothing was to be');
    },
  );

  it('are taken from the memory, whatever the default is', async () => {
    const machine = memory();
    const text = '{"input":"conv-transpose","weight":"taps-flat"}';
    const cache = { ...machine.cache, read: () => Promise.resolve(text) };
    const formsFor = await measuredForms(shut, [shape], { ...machine, cache });
    expect(formsFor(shape)).toEqual({ input: 'conv-transpose', weight: 'taps-flat' });
  });

  it('of small convolutions are the default ones', async () => {
    const small = { ...shape, samples: 2 };
    expect((await measuredForms(shut, [small], memory()))(small)).toEqual(chooseForms(small));
  });

  it('can be interrupted', async () => {
    const signal = AbortSignal.abort();
    await expect(measuredForms(engine, [shape], memory(), { signal })).rejects.toMatchObject({ code: 'aborted' });
  });
});

describe('the convolutions of a graph', () => {
  const pads = intsAttribute('pads', [1, 1, 1, 1]);
  const graph = new Graph(
    tinyModel({
      inputs: [info('x', [2, 4, 6, 6]), info('w', [4, 4, 3, 3])],
      outputs: [info('y')],
      nodes: [op('Conv x w -> a', [pads]), op('Relu a -> b'), op('Conv b w -> y', [pads])],
    }),
  );
  const shapes = new Map<string, readonly (number | undefined)[]>([
    ['w', [4, 4, 3, 3]],
    ...['x', 'a', 'b', 'y'].map((name) => [name, [2, 4, 6, 6]] as const),
  ]);

  it('are found, each shape once', () => {
    const found = convShapesOf(graph, shapes, undefined);
    expect(found).toEqual([expect.objectContaining({ inChannels: 4, outChannels: 4, input: [6, 6], samples: 2 })]);
  });

  it('are left out where sizes vary', () => {
    const varying = new Map([...shapes, ['b', [2, 4, undefined, 6]] as const]);
    expect(convShapesOf(graph, new Map([...varying, ['x', [2, 4, undefined, 6]]]), undefined)).toEqual([]);
  });
});
