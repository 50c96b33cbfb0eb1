/** Random graphs of channels that are filtered, joined, taken apart and put in another order: any units can go. */
import fc from 'fast-check';
import type { ModelProto, NodeProto, TensorProto } from 'onnx-buf';
import { describe, expect, it } from 'vitest';
import { intAttribute } from '../onnx/attributes.js';
import { parameterCount } from '../onnx/parameters.js';
import { info, ints, op, tensorFeed, tinyModel, weights } from '../testing/graph-writing.js';
import { cutAndCheck, randomSelection } from '../testing/random-cuts.js';

/** A chain of random steps on a [2, C, 6, 6] map, with branches that come together again. */
const step = fc.record({
  kind: fc.constantFrom(
    'conv',
    'norm',
    'relu',
    'depthwise',
    'add',
    'concat',
    'slice',
    'shuffle',
    'gate',
    'pad',
    'split',
    'flat',
  ),
  width: fc.integer({ min: 2, max: 7 }),
  back: fc.nat(3),
});

function randomModel(steps: readonly { kind: string; width: number; back: number }[]): ModelProto {
  const nodes: NodeProto[] = [];
  const stored = new Map<string, TensorProto>();
  const past: { name: string; width: number }[] = [];
  let count = 0;
  let at = { name: 'x', width: 3 };
  const store = (tensor: TensorProto): string => (stored.set(tensor.name, tensor), tensor.name);
  const fresh = (prefix: string): string => `${prefix}${String(++count)}`;
  const weight = (...dims: number[]): string => store(weights(fresh('w'), dims, count + 1));
  const numbers = (...values: number[]): string => store(ints(fresh('n'), values));
  const add = (text: string, width: number, attributes: Parameters<typeof op>[1] = []): void => {
    const name = fresh('v');
    nodes.push(op(`${text} -> ${name}`, attributes));
    at = { name, width };
  };
  const conv = (width: number): void => {
    add(`Conv ${at.name} ${weight(width, at.width, 1, 1)} ${weight(width)}`, width);
  };
  conv(4);
  for (const { kind, width, back } of steps) {
    past.push(at);
    const other = past[Math.max(0, past.length - 1 - back)]!;
    const axis = [intAttribute('axis', 1)];
    if (kind === 'conv') conv(width);
    if (kind === 'norm') add(`InstanceNormalization ${at.name} ${weight(at.width)} ${weight(at.width)}`, at.width);
    if (kind === 'relu') add(`Relu ${at.name}`, at.width);
    if (kind === 'depthwise')
      add(`Conv ${at.name} ${weight(at.width, 1, 1, 1)}`, at.width, [intAttribute('group', at.width)]);
    if (kind === 'add') {
      if (other.width !== at.width) conv(other.width);
      add(`Add ${at.name} ${other.name}`, at.width);
    }
    if (kind === 'concat') add(`Concat ${at.name} ${other.name} ${at.name}`, 2 * at.width + other.width, axis);
    if (kind === 'slice' && at.width > 2) {
      add(`Slice ${at.name} ${numbers(1)} ${numbers(at.width)} ${numbers(1)}`, at.width - 1);
    }
    if (kind === 'shuffle') {
      const order = Array.from({ length: at.width }, (_, i) => (i * 2 + back) % at.width);
      add(`Gather ${at.name} ${numbers(...order)}`, at.width, axis);
    }
    if (kind === 'gate') {
      const { name, width: wide } = at;
      add(`GlobalAveragePool ${name}`, wide);
      conv(wide);
      add(`Sigmoid ${at.name}`, wide);
      add(`Mul ${at.name} ${name}`, wide);
    }
    if (kind === 'pad') add(`Pad ${at.name} ${numbers(0, 1, 0, 0, 0, 2, 0, 0)}`, at.width + 3);
    if (kind === 'split' && at.width > 3) {
      const [left, right] = [fresh('v'), fresh('v')];
      nodes.push(op(`Split ${at.name} ${numbers(2, at.width - 2)} -> ${left} ${right}`, axis));
      at = { name: right, width: at.width - 2 };
      past.push({ name: left, width: 2 });
    }
    if (kind === 'flat') {
      const wide = at.width;
      add(`Flatten ${at.name}`, wide);
      add(`Reshape ${at.name} ${numbers(0, wide, 6, 6)}`, wide);
    }
  }
  nodes.push(op(`Conv ${at.name} ${weight(3, at.width, 1, 1)} -> y`));
  return tinyModel({
    inputs: [info('x', ['N', 3, 6, 6])],
    outputs: [info('y', ['N', 3, 6, 6])],
    nodes,
    initializers: [...stored.values()],
  });
}

describe('random graphs', () => {
  it('lose any units without anything else being different', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 2, maxLength: 9 }), fc.nat(1000), async (steps, seed) => {
        const model = randomModel(steps);
        const feeds = { x: tensorFeed([2, 3, 6, 6]) };
        const { cut, dependencies } = await cutAndCheck(model, feeds, (found) => randomSelection(found, 0.4, seed));
        const larger = dependencies.groups.some(({ units }) => units.length > 1);
        if (larger) expect(parameterCount(cut)).toBeLessThan(parameterCount(model));
      }),
      { numRuns: 40 },
    );
  });
});
