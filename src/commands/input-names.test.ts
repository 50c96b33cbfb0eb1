import { describe, expect, it } from 'vitest';
import { toBytes } from '../onnx/to-bytes.js';
import type { ValueSignature } from '../runtime/engine.js';
import { Builder } from '../testing/flow-models.js';
import { engine } from '../testing/graph-writing.js';
import { matchInputs, sessionWithInputNames, withInputNames } from './input-names.js';

const input = (name: string, ...dims: number[]): ValueSignature => ({ name, type: 'float32', dims: ['N', ...dims] });
const pairs = (found: ReadonlyMap<string, string> | undefined): unknown => found && [...found];

describe('matchInputs', () => {
  it('goes by names, then by shapes', () => {
    expect(matchInputs([input('a', 3)], [input('a', 3)], [], 't')).toBeUndefined();
    expect(pairs(matchInputs([input('a', 3), input('t')], [input('t'), input('b', 3)], [], 't'))).toEqual([
      ['t', 't'],
      ['a', 'b'],
    ]);
    expect(pairs(matchInputs([input('a', 3), input('c', 4)], [input('d', 4), input('b', 3)], [], 't'))).toEqual([
      ['a', 'b'],
      ['c', 'd'],
    ]);
  });

  it('leaves inputs that fit nothing to the check of all of them', () => {
    expect(matchInputs([input('a', 3)], [input('b', 4)], [], 't')).toBeUndefined();
    expect(matchInputs([input('a', 3)], [input('b', 3), input('c', 3)], [], 't')).toBeUndefined();
  });

  it('refuses what shapes do not tell, naming both, unless it is said', () => {
    const [teacher, student] = [
      [input('a', 3), input('b', 3)],
      [input('c', 3), input('d', 3)],
    ];
    expect(() => matchInputs(teacher, student, [], 't')).toThrow(/the teacher takes a .*b .*, the student c .*d /);
    expect(pairs(matchInputs(teacher, student, ['a=d'], 't'))).toEqual([
      ['a', 'd'],
      ['b', 'c'],
    ]);
    // Names that agree are not touched, even where they could be crossed.
    expect(pairs(matchInputs(teacher, teacher, ['a=b', 'b=a'], 't'))).toEqual([
      ['a', 'b'],
      ['b', 'a'],
    ]);
  });

  it('refuses names that there are not, and those given twice', () => {
    const sides = [[input('a', 3)], [input('b', 3)]] as const;
    expect(() => matchInputs(...sides, ['x=b'], 't')).toThrow(/the teacher has no input x/);
    expect(() => matchInputs(...sides, ['a=y'], 't')).toThrow(/the student has no input y/);
    expect(() => matchInputs(...sides, ['a=b', 'a=b'], 't')).toThrow(/given twice/);
  });
});

describe('a model under other input names', () => {
  it('computes the same, with names that change places', async () => {
    const b = new Builder(17, 1);
    const model = b.done(b.op('Sub', [b.input('p', [2]), b.input('q', [2])]));
    const names = new Map([
      ['p', 'q'],
      ['q', 'p'],
    ]);
    const opened = { model, content: toBytes(model), bytes: 0, files: [], name: 'm' };
    const renamed = await engine.createSession(toBytes(withInputNames(opened, names).model));
    const wrapped = sessionWithInputNames(await engine.createSession(toBytes(model)), names);
    const feed = (...data: number[]) => ({ type: 'float32' as const, dims: [1, 2], data: Float32Array.from(data) });
    for (const session of [renamed, wrapped]) {
      expect(session.inputs.map(({ name }) => name).sort()).toEqual(['p', 'q']);
      const results = await session.run({ p: feed(1, 2), q: feed(10, 20) });
      expect([...Object.values(results)[0]!.data]).toEqual([9, 18]);
    }
  });
});
