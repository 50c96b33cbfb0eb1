import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { expandSweep, parseSweepFile } from './sweep-file.js';
import type { KnownOptions } from './sweep-file.js';
import { makeTrial, SWEPT_COMMANDS } from './trial.js';
import type { TrialDescription } from './trial.js';

const KEYS = ['model', 'data', 'method', 'reduce', 'steps', 'lr', 'seed'];
const KNOWN = Object.fromEntries(SWEPT_COMMANDS.map((name) => [name, KEYS])) as unknown as KnownOptions;

function expand(text: string): TrialDescription[] {
  return parseSweepFile(text, 'sweep.yaml', KNOWN).flatMap((phase) => expandSweep(phase, 'sweep.yaml'));
}

const lists = fc.dictionary(
  fc.constantFrom(...KEYS.slice(1)),
  fc.uniqueArray(fc.integer({ min: 0, max: 99 }), { minLength: 1, maxLength: 3 }),
  { maxKeys: 4 },
);

describe('the file of a sweep', () => {
  it('crosses its lists: every combination once, in the order of the file', () => {
    fc.assert(
      fc.property(lists, (sweep) => {
        const trials = expand(stringify({ command: 'prune', sweep }));
        const count = Object.values(sweep).reduce((product, values) => product * values.length, 1);
        expect(trials).toHaveLength(count);
        expect(new Set(trials.map((one) => makeTrial('prune', one).id)).size).toBe(count);
        for (const { options } of trials)
          for (const [name, values] of Object.entries(sweep)) expect(values).toContain(options[name]);
        // The last list changes fastest: the combinations are those of a counter.
        const digits = trials.map(({ options }) =>
          Object.entries(sweep).reduce(
            (at, [name, values]) => at * values.length + values.indexOf(Number(options[name])),
            0,
          ),
        );
        expect(digits).toEqual([...digits.keys()]);
      }),
    );
  });

  it('leaves out exactly what a condition names, and changes exactly what an override names', () => {
    fc.assert(
      fc.property(lists, fc.nat(), (sweep, pick) => {
        const all = expand(stringify({ command: 'prune', sweep }));
        const [name, values] = Object.entries(sweep)[0] ?? [];
        if (name === undefined || values === undefined || name === 'lr') return;
        const wanted = values[pick % values.length]!;
        const changed = expand(
          stringify({ command: 'prune', sweep, overrides: [{ when: { [name]: wanted }, set: { lr: 1000 } }] }),
        );
        for (const one of changed) expect(one.options['lr'] === 1000).toBe(one.options[name] === wanted);
        if (values.length === 1) return;
        const left = expand(stringify({ command: 'prune', sweep, exclude: [{ [name]: wanted }] }));
        expect(left).toEqual(all.filter(({ options }) => options[name] !== wanted));
      }),
    );
  });

  it('takes defaults below lists below overrides, the later override last', () => {
    const trials = expand(
      stringify({
        command: 'prune',
        defaults: { model: 'a.onnx', steps: 10, lr: 1 },
        sweep: { steps: [20, 30] },
        overrides: [
          { when: { steps: [20, 30] }, set: { lr: 2 } },
          { when: { model: 'a.onnx', steps: 30 }, set: { lr: 3 } },
        ],
      }),
    );
    expect(trials).toEqual([
      { models: ['a.onnx'], options: { steps: 20, lr: 2 }, labels: { steps: '20' } },
      { models: ['a.onnx'], options: { steps: 30, lr: 3 }, labels: { steps: '30' } },
    ]);
  });

  it('goes through named sets of options, which conditions may name', () => {
    const trials = expand(`
command: prune
sweep:
  recipe:
    short: { steps: 5 }
    long: { steps: 50, lr: 0.1 }
    as it is:
  seed: [0, 1]
exclude:
  - { recipe: short, seed: 1 }
`);
    expect(trials.map(({ options, labels }) => [labels, options])).toEqual([
      [{ recipe: 'short' }, { steps: 5, seed: 0 }],
      [{ recipe: 'long' }, { steps: 50, lr: 0.1, seed: 0 }],
      [{ recipe: 'long' }, { steps: 50, lr: 0.1, seed: 1 }],
      [{ recipe: 'as it is' }, { seed: 0 }],
      [{ recipe: 'as it is' }, { seed: 1 }],
    ]);
  });

  it('runs once what overrides make alike', () => {
    const trials = expand(
      stringify({
        command: 'prune',
        sweep: { method: ['l1', 'l2'], lr: [1, 2] },
        overrides: [{ when: { method: 'l2' }, set: { lr: 9 } }],
      }),
    );
    expect(trials.map(({ options }) => [options['method'], options['lr']])).toEqual([
      ['l1', 1],
      ['l1', 2],
      ['l2', 9],
    ]);
  });

  it.each([
    ['command: prune\nsweeep: {}', /unknown key "sweeep"[^]*"sweep"/],
    ['command: prune\nsweep: {methd: [a]}', /unknown key "methd" in sweep[^]*"method"/],
    ['command: prune\ndefaults: {step: 3}', /unknown key "step" in defaults[^]*"steps"/],
    ['command: prune\noverrides: [{wen: {seed: 1}, set: {}}]', /unknown key "wen"[^]*"when"/],
    ['command: prune\nsweep: {seed: [1]}\noverrides: [{when: {sed: 1}, set: {}}]', /unknown key "sed"[^]*"seed"/],
    [
      'command: prune\nsweep: {seed: [1]}\noverrides: [{when: {seed: 1}, set: {stps: 1}}]',
      /unknown key "stps"[^]*"steps"/,
    ],
    ['command: prune\nsweep: {kind: {a: {stps: 1}}}', /unknown key "stps" in kind, a[^]*"steps"/],
    ['command: prune\nsweep: {seed: {a: {steps: 1}}}', /"seed" names sets of options but is an option/],
    ['command: prune\nsweep: {seed: [1, 2]}\nexclude: [{seed: 3}]', /no trial has seed: 3/],
    ['command: prune\nsweep: {seed: [1]}\nexclude: [{seed: 1}]', /no trial is left/],
    ['command: prone', /command/],
    ['command: prune\nsweep: {seed: []}', /sweep/],
    ['- a', /"key: value"/],
    ['command: [', /not valid YAML/],
    ['', /"key: value"/],
  ])('refuses %j with what is wrong', (text, message) => {
    let thrown: unknown;
    try {
      expand(text);
    } catch (error) {
      thrown = error;
    }
    const { code, message: said, hint, node } = thrown as { code: string; message: string; hint: string; node: string };
    expect({ code, node }).toEqual({ code: 'bad-input', node: 'sweep.yaml' });
    expect(`${said} ${hint}`).toMatch(message);
  });
});

describe('a trial', () => {
  it('has an id that hangs on what it does, not on the order of its options or on what tables call it', () => {
    const base = { models: ['a.onnx'], options: { steps: 1, lr: 2 }, labels: {} };
    const { id } = makeTrial('prune', base);
    expect(makeTrial('prune', { ...base, options: { lr: 2, steps: 1 }, labels: { recipe: 'x' } }).id).toBe(id);
    expect(makeTrial('compress', base).id).not.toBe(id);
    expect(makeTrial('prune', { ...base, models: ['b.onnx'] }).id).not.toBe(id);
    expect(makeTrial('prune', { ...base, options: { steps: 1, lr: 3 } }).id).not.toBe(id);
  });

  const PHASES = {
    defaults: { data: 'd.npz', seed: 3, steps: 9 },
    phases: {
      first: { command: 'train', defaults: { model: 'lenet5' }, sweep: { seed: [0, 1] } },
      cut: { command: 'prune', from: 'first', defaults: { steps: 5 } },
      last: { command: 'evaluate', from: ['first', 'cut'], defaults: { model: 'other.onnx' } },
    },
  };

  it('has phases, each with what the file says for all of them, but for what comes with a model', () => {
    const phases = parseSweepFile(stringify(PHASES), 'sweep.yaml', KNOWN);
    expect(phases.map(({ name, command, from, defaults }) => ({ name, command, from, defaults }))).toEqual([
      {
        ...{ name: 'first', command: 'train', from: [] },
        defaults: { data: 'd.npz', seed: 3, steps: 9, model: 'lenet5' },
      },
      { name: 'cut', command: 'prune', from: ['first'], defaults: { data: 'd.npz', steps: 5 } },
      {
        ...{ name: 'last', command: 'evaluate', from: ['first', 'cut'] },
        defaults: { data: 'd.npz', steps: 9, model: 'other.onnx' },
      },
    ]);
  });

  it.each([
    [{ cut: { command: 'prune', from: 'firt' } }, /"firt", which is no phase above/],
    [{ cut: { command: 'prune', from: 'last' } }, /"last", which is no phase above/],
    [{ cut: { command: 'prune', from: 'first', defaults: { model: 'a.onnx' } } }, /unknown key "model"/],
    [{ cut: { command: 'prune', form: 'first' } }, /unknown key "form" in phase cut/],
    [{ last: { command: 'evaluate' }, after: { command: 'prune', from: 'last' } }, /"last", which is no phase above/],
  ])('refuses phases such as %j', (phases, message) => {
    const text = stringify({ ...PHASES, phases: { ...PHASES.phases, ...phases } });
    expect(() => parseSweepFile(text, 'sweep.yaml', KNOWN)).toThrow(message);
    expect(() => parseSweepFile(stringify({ ...PHASES, default: {} }), 'sweep.yaml', KNOWN)).toThrow(/"default"/);
  });
});
