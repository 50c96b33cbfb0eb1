import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { AttributeProto } from 'onnx-buf';
import { intAttribute, intsAttribute, stringAttribute } from '../../onnx/attributes.js';
import { convGeometry } from '../../onnx/conv-geometry.js';
import { Graph } from '../../onnx/graph.js';
import { reduce } from '../../onnx/ops.js';
import { exposeValue } from '../../runtime/trace.js';
import { checkGradients, randomArray } from '../../testing/check-gradients.js';
import { checkInEngine } from '../../testing/check-in-engine.js';
import { checkReference } from '../../testing/check-reference.js';
import { info, op, tinyModel } from '../../testing/graph-writing.js';
import type { NdArray } from '../../testing/reference/array.js';
import { evaluate } from '../../testing/reference/evaluate.js';
import { differentiate } from '../differentiate.js';
import type { Shape } from '../rule.js';
import { INPUT_GRADIENTS } from './conv-input-gradient.js';
import { chooseForms, inputForms, weightForms, type ConvShape } from './conv-shape.js';
import { WEIGHT_GRADIENTS } from './conv-weight-gradient.js';

interface Case {
  readonly dims: number[];
  readonly weight: number[];
  readonly attributes: AttributeProto[];
  readonly seed: number;
}

/** One axis: kernel, stride, dilation, pads and a size that the kernel fits into. */
const axis = fc
  .record({
    kernel: fc.integer({ min: 1, max: 3 }),
    stride: fc.integer({ min: 1, max: 3 }),
    dilation: fc.integer({ min: 1, max: 2 }),
    begin: fc.integer({ min: 0, max: 2 }),
    end: fc.integer({ min: 0, max: 2 }),
    more: fc.integer({ min: 0, max: 2 }),
  })
  .map((a) => ({ ...a, size: Math.max(1, (a.kernel - 1) * a.dilation + 1 - a.begin - a.end) + a.more }));

const channels = fc.constantFrom(
  ...[
    { groups: 1, inner: 2, outer: 3 },
    { groups: 2, inner: 2, outer: 1 },
    { groups: 3, inner: 1, outer: 1 },
    { groups: 2, inner: 1, outer: 2 },
  ],
);

const cases = (ranks: readonly number[]): fc.Arbitrary<Case> =>
  fc
    .record({
      axes: fc.constantFrom(...ranks).chain((rank) => fc.array(axis, { minLength: rank, maxLength: rank })),
      channels,
      batch: fc.integer({ min: 1, max: 2 }),
      padding: fc.constantFrom('explicit', 'explicit', 'SAME_UPPER', 'SAME_LOWER', 'VALID'),
      dense: fc.boolean(),
      seed: fc.integer({ min: 1, max: 99 }),
    })
    .map(({ axes, channels: { groups, inner, outer }, batch, padding, dense, seed }) => ({
      dims: [batch, groups * inner, ...axes.map((a) => (padding === 'VALID' ? a.size + 4 : a.size))],
      weight: [groups * outer, inner, ...axes.map((a) => a.kernel)],
      attributes: [
        intAttribute('group', groups),
        intsAttribute(
          'strides',
          axes.map((a) => (dense ? 1 : a.stride)),
        ),
        intsAttribute(
          'dilations',
          axes.map((a) => (padding.startsWith('SAME') ? 1 : a.dilation)),
        ),
        padding === 'explicit'
          ? intsAttribute('pads', [...axes.map((a) => a.begin), ...axes.map((a) => a.end)])
          : stringAttribute('auto_pad', padding),
      ],
      seed,
    }));

const modelOf = (opType: string, { dims, weight, attributes }: Case, bias?: number): ReturnType<typeof tinyModel> =>
  tinyModel({
    inputs: [info('x', dims), info('w', weight), ...(bias === undefined ? [] : [info('b', [bias])])],
    outputs: [info('y')],
    nodes: [op(`${opType} x w ${bias === undefined ? '' : 'b '}-> y`, attributes)],
  });

const valuesOf = ({ dims, weight, seed }: Case, bias?: number): Record<string, NdArray> => ({
  x: randomArray(dims, seed),
  w: randomArray(weight, seed + 1),
  ...(bias === undefined ? {} : { b: randomArray([bias], seed + 2) }),
});

describe('Conv', () => {
  it('has the reference of ONNX Runtime', async () => {
    await fc.assert(
      fc.asyncProperty(cases([1, 2, 2, 3]), async (c) => {
        await checkReference(modelOf('Conv', c, c.weight[0]), valuesOf(c, c.weight[0]));
      }),
      { numRuns: 25 },
    );
  });

  it('goes back to input, weight and bias', () => {
    fc.assert(
      fc.property(cases([1, 2, 2]), fc.boolean(), (c, biased) => {
        const bias = biased ? c.weight[0] : undefined;
        checkGradients(modelOf('Conv', c, bias), valuesOf(c, bias));
      }),
      { numRuns: 25 },
    );
  });

  it('has the same gradients in every form', () => {
    fc.assert(
      fc.property(cases([1, 2, 2, 3]), (c) => {
        const model = modelOf('Conv', c);
        const given = valuesOf(c);
        const gradient = randomArray(evaluate(model, given).get('y')!.dims, c.seed + 5);
        const found = everyForm(shapeOf(c, model), c, { ...given, g: gradient });
        for (const input of ['x', 'w'] as const) {
          const [[firstName, first], ...others] = [...found].filter(([name]) => name.startsWith(input));
          expect(first.dims, firstName).toEqual(given[input]!.dims);
          // The output is linear in either operand: in a direction v it grows by the output at v.
          const direction = randomArray(first.dims, c.seed + 6);
          const grown = evaluate(model, { ...given, [input]: direction }).get('y')!;
          expect(dot(first, direction), firstName).toBeCloseTo(dot(grown, gradient), 9);
          for (const [name, other] of others) {
            expect(other.dims, name).toEqual(first.dims);
            other.data.forEach((value, i) => {
              expect(Math.abs(value - first.data[i]!), name).toBeLessThan(1e-9);
            });
          }
        }
      }),
      { numRuns: 25 },
    );
  });

  it('chooses a form that is right for the geometry', () => {
    fc.assert(
      fc.property(cases([1, 2, 3]), (c) => {
        const shape = shapeOf(c, modelOf('Conv', c));
        const { input, weight } = chooseForms(shape);
        expect(inputForms(shape)).toContain(input);
        expect(weightForms(shape)).toContain(weight);
      }),
    );
  });
});

function dot(a: NdArray, b: NdArray): number {
  return a.data.reduce((sum, value, i) => sum + value * b.data[i]!, 0);
}

function shapeOf({ dims, weight }: Case, model: ReturnType<typeof tinyModel>): ConvShape {
  const node = new Graph(model).nodes[0]!;
  return {
    ...convGeometry(node, dims, weight),
    ...{ input: dims.slice(2), inChannels: dims[1]!, outChannels: weight[0]!, groups: node.int('group', 1) },
  };
}

/** Gradients by input name and form. */
function everyForm(shape: ConvShape, { dims, weight }: Case, given: Record<string, NdArray>): Map<string, NdArray> {
  const graph = new Graph(
    tinyModel({ inputs: [info('x', dims), info('w', weight), info('g')], outputs: [], nodes: [] }),
  );
  const [x, w, g] = ['x', 'w', 'g'].map((name) => graph.mustGet(name));
  const values = new Map([
    ...inputForms(shape).map((form) => [`x by ${form}`, INPUT_GRADIENTS[form](graph, shape, g!, w!)] as const),
    ...weightForms(shape).map((form) => [`w by ${form}`, WEIGHT_GRADIENTS[form](graph, shape, x!, g!)] as const),
  ]);
  for (const value of values.values()) exposeValue(graph, value);
  const found = evaluate(graph.toModel(), given);
  return new Map([...values].map(([name, value]) => [name, found.get(value.name)!]));
}

describe('ConvTranspose', () => {
  /** Kernel, strides and so on as for Conv, the output larger than the input. */
  const transposed = fc
    .record({
      axes: fc.constantFrom(1, 2, 2).chain((rank) => fc.array(axis, { minLength: rank, maxLength: rank })),
      channels,
      output: fc.constantFrom('explicit', 'padded', 'shape', 'SAME_UPPER', 'SAME_LOWER', 'VALID'),
      seed: fc.integer({ min: 1, max: 99 }),
    })
    // ONNX Runtime does not fill a SAME output that the kernel does not reach.
    .filter(({ axes, output }) => !output.startsWith('SAME') || axes.every((a) => a.kernel >= a.stride))
    .map(({ axes, channels: { groups, inner, outer }, output, seed }) => {
      const cut = axes.map((a) => {
        const room = (a.size - 1) * a.stride + (a.kernel - 1) * a.dilation;
        return { begin: Math.min(a.begin, room), end: Math.min(a.end, Math.max(0, room - a.begin)) };
      });
      const pads = intsAttribute('pads', [...cut.map((a) => a.begin), ...cut.map((a) => a.end)]);
      const full = axes.map((a) => (a.size - 1) * a.stride + (a.kernel - 1) * a.dilation + 1);
      return {
        dims: [1, groups * inner, ...axes.map((a) => a.size)],
        weight: [groups * inner, outer, ...axes.map((a) => a.kernel)],
        attributes: [
          intAttribute('group', groups),
          intsAttribute(
            'strides',
            axes.map((a) => a.stride),
          ),
          intsAttribute(
            'dilations',
            axes.map((a) => (output.startsWith('SAME') ? 1 : a.dilation)),
          ),
          ...(output === 'explicit' || output === 'padded' ? [pads] : []),
          ...(output === 'padded'
            ? [
                intsAttribute(
                  'output_padding',
                  axes.map((a) => Math.min(a.more, a.stride - 1)),
                ),
              ]
            : []),
          ...(output === 'shape'
            ? [
                intsAttribute(
                  'output_shape',
                  full.map((n, i) => Math.max(1, n - axes[i]!.begin)),
                ),
              ]
            : []),
          ...(output === output.toUpperCase() ? [stringAttribute('auto_pad', output)] : []),
        ],
        seed,
        outChannels: groups * outer,
      };
    });

  it('has the reference of ONNX Runtime', async () => {
    await fc.assert(
      fc.asyncProperty(transposed, async (c) => {
        await checkReference(modelOf('ConvTranspose', c, c.outChannels), valuesOf(c, c.outChannels));
      }),
      { numRuns: 60 },
    );
  });

  it('goes back to input, weight and bias', () => {
    fc.assert(
      fc.property(transposed, (c) => {
        checkGradients(modelOf('ConvTranspose', c, c.outChannels), valuesOf(c, c.outChannels));
      }),
      { numRuns: 25 },
    );
  });
});

describe('in the engine', () => {
  const [two, pads] = [intsAttribute('strides', [2, 2]), intsAttribute('pads', [1, 1, 1, 1])];
  it.each([
    ['Conv', [4, 3, 3, 3], 4, [pads]],
    ['Conv', [4, 3, 3, 3], 4, [pads, two]],
    ['Conv', [3, 1, 3, 3], 3, [pads, intAttribute('group', 3)]],
    ['Conv', [3, 1, 3, 3], 3, [pads, two, intAttribute('group', 3)]],
    ['Conv', [4, 3, 1, 1], 4, []],
    ['Conv', [4, 3, 1, 1], 4, [two]],
    ['ConvTranspose', [3, 4, 3, 3], 4, [pads, two, intsAttribute('output_padding', [1, 1])]],
    ['ConvTranspose', [3, 2, 2, 2], 6, [two, intAttribute('group', 3)]],
  ] as const)('%s with W [%j] goes back, whatever the batch', async (opType, weight, outChannels, attributes) => {
    const model = tinyModel({
      opset: 13,
      inputs: [info('x', ['N', 3, 4, 4]), info('w', weight), info('b', [outChannels])],
      outputs: [info('y')],
      nodes: [op(`${opType} x w b -> y`, [...attributes])],
    });
    const given = (batch: number): Record<string, NdArray> => ({
      x: randomArray([batch, 3, 4, 4], 1),
      w: randomArray(weight, 2),
      b: randomArray([outChannels], 3),
    });
    await checkInEngine(model, given(2), { others: [given(1)] });
  });

  it('refuses an image size that varies', () => {
    const model = modelOf('Conv', { dims: [1, 1, 3], weight: [1, 1, 2], attributes: [], seed: 1 });
    const graph = new Graph(model);
    const loss = reduce(graph, 'ReduceSum', graph.mustGet('y'));
    const shapes = new Map<string, Shape>([
      ...([
        ['x', [1, 1, undefined]],
        ['w', [1, 1, 2]],
        ['y', [1, 1, undefined]],
      ] as const),
      [loss.name, []],
    ]);
    const refusal: unknown = expect.objectContaining({ code: 'unsupported', node: 'y' });
    expect(() => differentiate(graph, loss, [graph.mustGet('w')], { shapes })).toThrow(refusal as Error);
  });
});
