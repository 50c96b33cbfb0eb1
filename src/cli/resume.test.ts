/** `--run-dir` and `--resume` through the whole program: what is kept, what is not done twice, what is refused. */
import { readFile, rm } from 'node:fs/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { ProgressEvent } from '../progress.js';
import { listeningTo, workbench, type Outcome, type Workbench } from '../testing/command-line.js';
import { normals, tinyResNet } from '../testing/tiny-models.js';
import { npzOf } from '../testing/tiny-net.js';

const SAMPLES = 40;
const DATA = npzOf(
  'x',
  [3, 8, 8],
  normals(SAMPLES * 192, 3),
  Array.from({ length: SAMPLES }, (_, i) => i % 5),
);

let bench: Workbench;
let args: string[];
let runDir = '';

beforeEach(async () => {
  bench = await workbench();
  runDir = bench.at('run');
  const model = await bench.model('model.onnx', tinyResNet());
  const data = await bench.write('data.npz', DATA);
  args = ['quantize', model, '-o', bench.at('out.onnx'), '--data', data, '--run-dir', runDir, '--json', '--quiet'];
  args.push('--execution', 'float', '--latency-runs', '2');
});
afterEach(() => bench.remove());

interface Run extends Outcome {
  readonly changed: string[];
  readonly stages: readonly string[];
  readonly layers: unknown;
}

/** Runs the command; `stopAt` interrupts at the first event it accepts. */
async function run(flags: string[] = [], stopAt: (event: ProgressEvent) => boolean = () => false): Promise<Run> {
  const abort = new AbortController();
  const stages = new Set<string>();
  const outcome = await bench.run([...args, ...flags], {
    signal: abort.signal,
    library: listeningTo((event) => {
      stages.add(event.stage);
      if (stopAt(event)) abort.abort();
    }),
  });
  const { layers } = JSON.parse(outcome.stdout || '{}') as { layers?: unknown };
  return { ...outcome, stages: [...stages], layers };
}

async function known(): Promise<string[]> {
  const state = JSON.parse(await readFile(bench.at('run/state.json'), 'utf8')) as { divergences: object };
  return Object.keys(state.divergences).sort();
}

describe('a run with a run directory', () => {
  it('leaves settings, measurements, report and log, and prints its report at once when it is resumed', async () => {
    const first = await run();
    expect(first.code).toBe(0);
    expect(first.changed.sort()).toEqual(
      ['out.onnx', 'run', 'run/log.jsonl', 'run/report.json', 'run/settings.json', 'run/state.json'].sort(),
    );
    expect(await known()).toEqual(['block.a', 'block.b', 'head', 'stem']);
    const lines = (await readFile(bench.at('run/log.jsonl'), 'utf8')).trim().split('\n');
    const logged = lines.map((line) => (JSON.parse(line) as { stage: string }).stage);
    expect(logged).toEqual(expect.arrayContaining(['calibrate', 'measure divergence', 'round weights']));
    const again = await run(['--resume']);
    expect(again).toMatchObject({ code: 0, changed: [], stages: ['open'] });
    const seconds = /"seconds": [\d.]+/;
    expect(seconds.exec(again.stdout)).toEqual(expect.arrayContaining([seconds.exec(first.stdout)![0]]));
  });

  it('goes on after an interrupt with what it measured, to the same result', async () => {
    const whole = await run(['--run-dir', bench.at('other')]);
    await rm(bench.at('out.onnx'));
    const stopped = await run([], ({ stage }) => stage === 'round weights');
    expect(stopped).toMatchObject({ code: 130 });
    expect(stopped.stderr).toContain('The same command with --resume continues');
    expect(await known()).toHaveLength(4);
    // A trace of what is read back: the widths follow these figures.
    const file = bench.at('run/state.json');
    const state = await readFile(file, 'utf8');
    const resumed = await run(['--resume']);
    expect(resumed).toMatchObject({ code: 0, layers: whole.layers });
    expect((JSON.parse(await readFile(file, 'utf8')) as { divergences: object }).divergences).toEqual(
      (JSON.parse(state) as { divergences: object }).divergences,
    );
  });

  it('measures again only what is missing', async () => {
    await run([], ({ stage }) => stage === 'round weights');
    const file = bench.at('run/state.json');
    const state = JSON.parse(await readFile(file, 'utf8')) as { divergences: Record<string, { divergence: number }[]> };
    const original = JSON.stringify(state.divergences);
    const resumeWith = async (divergences: object): Promise<string> => {
      await bench.write('run/state.json', JSON.stringify({ divergences }));
      expect((await run(['--resume', '--force'])).code).toBe(0);
      await rm(bench.at('run/report.json'));
      return JSON.stringify((JSON.parse(await readFile(file, 'utf8')) as typeof state).divergences);
    };
    state.divergences['head']![0]!.divergence = 123;
    // What is on file is believed, not measured.
    expect(await resumeWith(state.divergences)).toBe(JSON.stringify(state.divergences));
    const { stem } = state.divergences;
    expect(JSON.parse(await resumeWith({ stem }))).toEqual(JSON.parse(original));
  });

  it('makes the output again when it is gone', async () => {
    const first = await run();
    await rm(bench.at('out.onnx'));
    const again = await run(['--resume']);
    expect(again).toMatchObject({ code: 0, layers: first.layers });
    expect(again.changed).toContain('out.onnx');
  });

  it('may be resumed before it left anything', async () => {
    expect(await run(['--resume'])).toMatchObject({ code: 0 });
  });

  it('is not continued with other settings, another model or other data, and not begun twice', async () => {
    await run([], ({ stage }) => stage === 'round weights');
    const refused = async (message: RegExp, ...flags: string[]): Promise<void> => {
      const { code, stderr, changed } = await run(flags);
      expect(stderr).toMatch(message);
      expect({ code, changed }).toEqual({ code: 2, changed: [] });
    };
    await refused(/run holds a run already\.[^]*--resume/);
    await refused(/cannot be continued: bits was not given and is 3 now/, '--resume', '--bits', '3');
    const file = bench.at('run/state.json');
    const state = await readFile(file, 'utf8');
    await bench.write('run/state.json', state.slice(0, 50));
    await refused(/state\.json is damaged/, '--resume');
    await bench.write('run/state.json', state);
    await bench.write('data.npz', npzOf('x', [3, 8, 8], normals(SAMPLES * 192, 4)));
    await refused(/cannot be continued: the data has changed/, '--resume');
    await bench.write('data.npz', DATA);
    await bench.model('model.onnx', tinyResNet(17, 16));
    await refused(/cannot be continued: the model has changed/, '--resume');
    await refused(/data\.npz is a file: a run directory is a folder/, '--run-dir', bench.at('data.npz'));
  });
});

describe('profile', () => {
  it('is resumed in the same way', async () => {
    const profile = [
      'profile',
      args[1]!,
      '--data',
      bench.at('data.npz'),
      '--run-dir',
      runDir,
      '--widths',
      '2,8',
      '--json',
    ];
    const first = await bench.run(profile);
    expect(first.code).toBe(0);
    const again = await bench.run([...profile, '--resume']);
    expect(again).toMatchObject({ code: 0, changed: [] });
    await rm(bench.at('run/report.json'));
    const measured = await bench.run([...profile, '--resume']);
    const layersOf = (outcome: Outcome): unknown => (JSON.parse(outcome.stdout) as { layers: unknown }).layers;
    expect(measured.changed).toContain('run/report.json');
    expect(layersOf(measured)).toEqual(layersOf(first));
    expect((await bench.run([...args, '--resume'])).stderr).toMatch(/it is a run of profile, not of quantize/);
  });
});
