import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { assignmentCost, mapByAssignment, mapByDepth, readMapping, type MappableLayer } from './mapping.js';

const share = fc.double({ min: 0, max: 1, noNaN: true });
const layers = (count: number): fc.Arbitrary<MappableLayer[]> =>
  fc
    .array(fc.record({ depth: share, kind: fc.constantFrom('Conv', 'Gemm') }), { minLength: count, maxLength: count })
    .map((list) => list.sort((a, b) => a.depth - b.depth).map((layer, i) => ({ ...layer, name: `layer${String(i)}` })));
const cases = fc.tuple(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 1, max: 5 })).chain(([l, m]) =>
  fc.record({
    teacher: layers(l),
    student: layers(m),
    cka: fc.array(fc.array(share, { minLength: m, maxLength: m }), { minLength: l, maxLength: l }),
  }),
);

/** Every non-decreasing map of `m` layers into `l`. */
function monotone(m: number, l: number, from = 0): number[][] {
  if (m === 0) return [[]];
  return Array.from({ length: l - from }, (_, i) => from + i).flatMap((first) =>
    monotone(m - 1, l, first).map((rest) => [first, ...rest]),
  );
}

const isMonotone = (map: readonly number[]): boolean => map.every((l, m) => m === 0 || l >= map[m - 1]);
const at = (depth: number, kind = 'Conv', name = String(depth)): MappableLayer => ({ name, depth, kind });

describe('mapByAssignment', () => {
  it('costs as little as the best of all maps that keep the order, and is the same each time', () => {
    fc.assert(
      fc.property(cases, (input) => {
        const { teacher, student, cka } = input;
        const costOf = (map: readonly number[]): number =>
          map.reduce((sum, l, m) => sum + assignmentCost(teacher[l], student[m], cka[l][m]), 0);
        const map = mapByAssignment(input);
        expect(map).toHaveLength(student.length);
        expect(isMonotone(map)).toBe(true);
        expect(costOf(map)).toBeCloseTo(Math.min(...monotone(student.length, teacher.length).map(costOf)), 10);
        expect(mapByAssignment(input)).toEqual(map);
      }),
    );
  });

  it('weighs likeness, depth and kind as the formula does', () => {
    const [conv, gemm] = [at(0, 'Conv'), at(0.5, 'Gemm')];
    expect(assignmentCost(conv, gemm, 0.25)).toBeCloseTo(0.75 + 0.15 + 0.2, 12);
    expect(assignmentCost(conv, at(1), 1)).toBeCloseTo(0.3, 12);
    // Alike features outweigh the depth; alike kinds decide between equal ones.
    const teacher = [at(0), at(0.5), at(1)];
    expect(mapByAssignment({ teacher, student: [at(0)], cka: [[0.1], [0.2], [0.9]] })).toEqual([2]);
    expect(mapByAssignment({ teacher: [at(0.4, 'Gemm'), at(0.6)], student: [at(0.5)], cka: [[0.5], [0.5]] })).toEqual([
      1,
    ]);
  });

  it('refuses a matrix of other dimensions and models without layers', () => {
    expect(() => mapByAssignment({ teacher: [at(0)], student: [at(0)], cka: [[1, 1]] })).toThrow(/1 x 1 layers/);
    expect(() => mapByAssignment({ teacher: [], student: [at(0)], cka: [] })).toThrow(/teacher has no layers/);
    expect(() => mapByDepth({ teacher: [at(0)], student: [] })).toThrow(/student has no layers/);
  });
});

describe('mapByDepth', () => {
  it('takes the nearest depth, the earlier of equals', () => {
    const teacher = [0, 0.2, 0.4, 0.6, 0.8, 1].map((depth) => at(depth));
    expect(mapByDepth({ teacher, student: [0, 0.5, 1].map((depth) => at(depth)) })).toEqual([0, 2, 5]);
    expect(mapByDepth({ teacher: [at(1)], student: [at(0), at(0.7), at(1)] })).toEqual([0, 0, 0]);
    expect(mapByDepth({ teacher, student: [at(0.65)] })).toEqual([3]);
  });

  it('is as near as each layer alone could be, in order', () => {
    fc.assert(
      fc.property(cases, ({ teacher, student }) => {
        const map = mapByDepth({ teacher, student });
        expect(isMonotone(map)).toBe(true);
        map.forEach((l, m) => {
          const nearest = Math.min(...teacher.map(({ depth }) => Math.abs(depth - student[m].depth)));
          expect(Math.abs(teacher[l].depth - student[m].depth)).toBeCloseTo(nearest, 10);
        });
      }),
    );
  });
});

describe('readMapping', () => {
  const [teacher, student] = [
    ['a', 'b', 'c', 'd'],
    ['x', 'y', 'z'],
  ];
  const read = (json: unknown) => readMapping(json, teacher, student);

  it('reads a line for every layer of the student, in any order', () => {
    expect(read({ z: 'd', x: 'b', y: 'b' })).toEqual([1, 1, 3]);
  });

  it.each([
    [['x'], /object of names/, undefined],
    ['x', /object of names/, undefined],
    [null, /object of names/, undefined],
    [{ x: 1, y: 'b', z: 'c' }, /object of names/, undefined],
    [{ x: 'a', z: 'c' }, /leaves out layers of the student: y\./, 'y'],
    [{ x: 'a', y: 'e', z: 'f' }, /teacher does not have: e, f\./, 'e'],
    [{ x: 'a', y: 'b', z: 'c', w: 'd' }, /student does not have: w\./, 'w'],
    [{ x: 'b', y: 'a', z: 'c' }, /y comes after x in the student, but a before b/, 'y'],
  ])('refuses %j', (json, message, node) => {
    expect(() => read(json)).toThrow(message);
    try {
      read(json);
    } catch (error) {
      expect(error).toMatchObject({ code: 'bad-input', hint: expect.any(String) as string });
      expect((error as { node?: string }).node).toBe(node);
    }
  });

  it('takes names that objects have by nature for missing', () => {
    expect(() => readMapping({}, ['a'], ['constructor'])).toThrow(/leaves out layers of the student: constructor/);
  });
});
