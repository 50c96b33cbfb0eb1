/** The command line with library functions put in: purity of stdout, exit codes, help, options that arrive. */
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { QuantizeOptions } from '../commands/quantize/options.js';
import type { TrainOptions } from '../commands/train/options.js';
import { QUANTIZATION_METHODS } from '../commands/quantize/options.js';
import { trainOptionsSchema } from '../commands/train/options.js';
import { FlowCompressError, throwIfAborted } from '../errors.js';
import { parseReport } from '../report/report.js';
import {
  benchReport,
  compressReport,
  distillReport,
  evaluateReport,
  inspectReport,
  profileReport,
  pruneReport,
  quantizeReport,
  trainReport,
} from '../testing/reports.js';
import { flagName } from './flags.js';
import type { Library } from './library-types.js';
import { runCli } from './program.js';

interface Outcome {
  code: number;
  stdout: string;
  stderr: string;
}

const LIBRARY: Library = {
  inspectModel: async () => ({ report: inspectReport() }),
  evaluateModels: async () => ({ report: evaluateReport() }),
  profileModel: async () => ({ report: profileReport() }),
  quantizeModel: async (_, options) => {
    options.onProgress?.({ stage: 'calibrate', done: 0, total: 2 });
    throwIfAborted(options.signal);
    return { report: quantizeReport() };
  },
  pruneModel: async () => ({ report: pruneReport() }),
  runSweep: async () => ({ report: benchReport() }),
  helpSweep: async () => ({
    report: { command: 'worker', folder: 'runs/p', trials: { planned: 4, done: 3, failed: 1 }, workers: [] },
  }),
  compressModel: async () => ({ report: compressReport() }),
  distillModel: async () => ({ report: distillReport() }),
  trainModel: async () => ({ report: trainReport() }),
};
const TRAIN = ['train', 'in.onnx', '-o', 'out.onnx', '--data', 'd.npz'];
const QUANTIZE = ['quantize', 'in.onnx', '-o', 'out.onnx', '--data', 'd.npz'];
let folder = '';

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'flow-cli-'));
});
afterAll(async () => {
  await rm(folder, { recursive: true });
});

async function run(
  args: string[],
  library: Partial<Library> = {},
  signal = new AbortController().signal,
): Promise<Outcome> {
  const written = { stdout: '', stderr: '' };
  const stream = (name: 'stdout' | 'stderr'): PassThrough =>
    new PassThrough().on('data', (chunk: Buffer) => {
      written[name] += chunk.toString();
    });
  const context = { library: { ...LIBRARY, ...library }, version: '1.2.3', env: {}, signal, args };
  const code = await runCli({ ...context, stdout: stream('stdout'), stderr: stream('stderr') });
  return { code, ...written };
}

/** Runs quantize and returns the options that reached the library. */
async function optionsOf(...flags: string[]): Promise<QuantizeOptions | undefined> {
  let seen: QuantizeOptions | undefined;
  const outcome = await run([...QUANTIZE, ...flags], {
    quantizeModel: async (_, options) => {
      seen = options;
      return { report: quantizeReport() };
    },
  });
  expect(outcome.stderr).not.toContain('error');
  return seen;
}

/** Runs train and returns the options that reached the library. */
async function trainOptionsOf(...flags: string[]): Promise<TrainOptions | undefined> {
  let seen: TrainOptions | undefined;
  const outcome = await run([...TRAIN, ...flags], {
    trainModel: async (_, options) => {
      seen = options;
      return { report: trainReport() };
    },
  });
  expect(outcome.stderr).not.toContain('error');
  return seen;
}

describe('help', () => {
  it('lists every command and the exit codes', async () => {
    const { code, stdout, stderr } = await run(['--help']);
    expect(code).toBe(0);
    expect(stderr).toBe('');
    for (const name of ['inspect', 'evaluate', 'profile', 'quantize', 'train', 'Examples:', '130 interrupted'])
      expect(stdout).toContain(name);
  });

  it.each(['inspect', 'evaluate', 'profile', 'quantize', 'train'])(
    '%s has examples and the general flags',
    async (name) => {
      const { code, stdout } = await run([name, '--help']);
      expect(code).toBe(0);
      expect(stdout).toContain(`$ flow-compress ${name} `);
      for (const flag of ['--config', '--report', '--json', '--quiet', '--force']) expect(stdout).toContain(flag);
    },
  );

  it('names every quantization method', async () => {
    const { stdout } = await run(['quantize', '--help']);
    for (const { name, summary } of QUANTIZATION_METHODS) expect(stdout).toMatch(new RegExp(`${name} +${summary}`));
  });

  it('has a flag for every option of train, and none that has no meaning there', async () => {
    const { stdout } = await run(['train', '--help']);
    const notFlags = new Set(['calibSamples', 'preprocess', 'preprocessFile']);
    for (const key of Object.keys(trainOptionsSchema.shape).filter((name) => !notFlags.has(name)))
      expect(stdout).toMatch(new RegExp(`${flagName(key)}[ \\n]`));
    expect(stdout).not.toContain('--calib-samples');
    expect(stdout.match(/--batch-size <n> .*/g)).toEqual([expect.stringContaining('(default: 128)')]);
  });

  it('prints the version', async () => {
    expect(await run(['--version'])).toEqual({ code: 0, stdout: '1.2.3\n', stderr: '' });
  });
});

describe('evaluate', () => {
  it('hands the teacher to the library, and keeps a report from replacing it', async () => {
    let seen: string[] = [];
    const library: Partial<Library> = {
      evaluateModels: async (models, { teacher, data }) => {
        seen = [...models, String(teacher), data];
        return { report: evaluateReport() };
      },
    };
    const args = ['evaluate', 'a.onnx', '--teacher', 'big.onnx', '--data', 'd.npz'];
    expect(await run(args, library)).toMatchObject({ code: 0 });
    expect(seen).toEqual(['a.onnx', 'big.onnx', 'd.npz']);
    const teacher = join(folder, 'teacher.md');
    await writeFile(teacher, 'mine');
    const clash = ['evaluate', 'a.onnx', '--teacher', teacher, '--data', 'd.npz', '--force', '--report', teacher];
    expect(await run(clash, library)).toMatchObject({ code: 2 });
    expect(await readFile(teacher, 'utf8')).toBe('mine');
    await rm(teacher);
  });
});

describe('output', () => {
  it.each([
    ['inspect', ['inspect', 'in.onnx']],
    ['evaluate', ['evaluate', 'a.onnx', 'b.onnx', '--data', 'd.npz']],
    ['profile', ['profile', 'in.onnx', '--data', 'd.npz']],
    ['quantize', QUANTIZE],
    ['train', TRAIN],
  ])('%s --json puts exactly one report on stdout', async (command, args) => {
    const { code, stdout } = await run([...args, '--json']);
    expect(code).toBe(0);
    expect(parseReport(JSON.parse(stdout))).toMatchObject({
      command,
      commandLine: ['flow-compress', ...args, '--json'].join(' '),
    });
  });

  it('prints a table otherwise, and progress never reaches stdout', async () => {
    const { stdout } = await run(QUANTIZE);
    expect(stdout).toContain('8.00x smaller');
    expect(stdout).not.toContain('calibrate');
  });

  it('writes reports whole, by extension, and not over an existing file', async () => {
    for (const [name, start] of [
      ['r.html', '<!doctype html>'],
      ['r.md', '# out.onnx'],
      ['r.json', '{'],
    ]) {
      const path = join(folder, name);
      expect(await run([...QUANTIZE, '--report', path])).toMatchObject({ code: 0 });
      expect(await readFile(path, 'utf8')).toMatch(new RegExp(`^${start}`));
    }
    const path = join(folder, 'kept.html');
    await writeFile(path, 'mine');
    const refused = await run([...QUANTIZE, '--report', path], {
      quantizeModel: () => Promise.reject(new Error('must not be called')),
    });
    expect(refused.code).toBe(2);
    expect(await readFile(path, 'utf8')).toBe('mine');
    expect(await run([...QUANTIZE, '--report', path, '--force'])).toMatchObject({ code: 0 });
    expect((await readdir(folder)).sort()).toEqual(['kept.html', 'r.html', 'r.json', 'r.md']);
  });
});

describe('errors', () => {
  it.each([
    [['quantize', 'in.onnx', '--data', 'd'], /--output is required/],
    [['quantize', 'in.onnx', '-o', 'x'], /--data is required/],
    [[...QUANTIZE, '--bits', '9'], /--bits: expected number to be <=8 \(given: 9\)/],
    [[...QUANTIZE, '--bits', '3', '--max-size', '9KB'], /--bits: cannot be combined/],
    [[...QUANTIZE, '--method', 'magic'], /--method: unknown method "magic"; there are faaq/],
    [[...QUANTIZE, '--min-bits', '6', '--max-bits', '4'], /--min-bits: must not be above/],
    [[...QUANTIZE, '--mean', '1,x'], /--mean: "x" is not a number/],
    [[...QUANTIZE, '--target', 'gpu'], /--target: .*"cpu"/],
    [[...QUANTIZE, '--resume'], /--resume: needs --run-dir/],
    [['train', 'in.onnx', '--data', 'd'], /--output is required/],
    [[...TRAIN, '--max-time', 'soon'], /--max-time must be a time such as 90s/],
    [[...TRAIN, '--augment', 'crop,spin'], /--augment: .*"flip"/],
    [[...TRAIN, '--optimizer', 'magic'], /--optimizer: .*"adamw"/],
    [[...TRAIN, '--lr', '0'], /--lr: /],
    [[...TRAIN, '--resume'], /--resume: needs --run-dir/],
    [[...TRAIN, '--calib-samples', '5'], /unknown option '--calib-samples'/],
    [[...QUANTIZE, '--report', 'r.pdf'], /must end in \.html/],
    [[...QUANTIZE, '--report', 'out.html', '-o', 'out.html'], /name the same file/],
    [[...QUANTIZE, '--methd', 'faaq'], /Did you mean --method/],
    [['evaluate', '--data', 'd'], /missing required argument/],
    [['squash'], /unknown command/],
    [[], /Usage:/],
  ])('%j is refused with exit code 2', async (args, message) => {
    const { code, stdout, stderr } = await run(args);
    expect(code).toBe(2);
    expect(stderr).toMatch(message);
    expect(stdout).toBe('');
  });

  it('prints one JSON object on stdout for a failure with --json too', async () => {
    const infeasible = new FlowCompressError('infeasible', 'Came to 500 kB.', {
      node: 'fc',
      hint: 'Use --best-effort.',
    });
    const { code, stdout, stderr } = await run([...QUANTIZE, '--json'], {
      quantizeModel: () => Promise.reject(infeasible),
    });
    expect(code).toBe(3);
    expect(JSON.parse(stdout)).toEqual({
      command: 'quantize',
      error: { code: 'infeasible', message: 'Came to 500 kB.', node: 'fc', hint: 'Use --best-effort.', exitCode: 3 },
    });
    expect(stderr).toBe('error: Came to 500 kB.\n  node: fc\n  hint: Use --best-effort.\n');
  });

  it('shows the best-effort result and still exits with 3', async () => {
    const budget = { unit: 'bytes', requested: 1000, achieved: 2000, met: false } as const;
    const { code, stdout } = await run(QUANTIZE, {
      quantizeModel: async () => ({ report: quantizeReport({ budget }) }),
    });
    expect(code).toBe(3);
    expect(stdout).toContain('Budget NOT met');
  });

  it.each([
    ['budget', { budget: { of: 'macs', requested: 0.9, achieved: 0.5, met: false } }],
    ['drop', { drop: { metric: 'top1', allowed: 0.01, measured: 0.02, met: false } }],
  ] as const)('exits with 3 when a pruned model misses its %s', async (_, overrides) => {
    const prune = ['prune', 'in.onnx', '-o', 'out.onnx', '--data', 'd.npz'];
    const { code } = await run(prune, { pruneModel: async () => ({ report: pruneReport(overrides) }) });
    expect(code).toBe(3);
    expect((await run(prune)).code).toBe(0);
  });

  it('exits with 130 once the signal has fired and says how to go on', async () => {
    const { code, stderr } = await run([...QUANTIZE, '--run-dir', 'runs/1'], {}, AbortSignal.abort());
    expect(code).toBe(130);
    expect(stderr).toContain('--resume continues');
  });

  it('does not show a stack for a surprise', async () => {
    const { code, stderr } = await run(['inspect', 'in.onnx'], {
      inspectModel: () => Promise.reject(new RangeError('boom')),
    });
    expect(code).toBe(1);
    expect(stderr).toMatch(/^error: unexpected RangeError: boom\n {2}hint: .*\n$/);
  });
});

describe('options', () => {
  it('arrive parsed, with the documented defaults', async () => {
    expect(await optionsOf('--max-size', '400KB', '--sweep', '2,3', '--std', '0.5', '--size', '32x24')).toMatchObject({
      output: 'out.onnx',
      method: 'faaq',
      maxSize: 400_000,
      sweep: [2, 3],
      seed: 0,
      target: 'cpu',
      calibSamples: 512,
      execution: 'auto',
      preprocess: { std: [0.5], size: [32, 24] },
    });
  });

  it('come from a configuration file under the flags', async () => {
    const config = join(folder, 'c.yaml');
    await writeFile(config, 'bits: 3.5\nmin-bits: 3\npreprocess: p.json\nmean: [0.1, 0.2, 0.3]\n');
    const options = await optionsOf('--config', config, '--min-bits', '2');
    expect(options).toMatchObject({
      bits: 3.5,
      minBits: 2,
      preprocessFile: 'p.json',
      preprocess: { mean: [0.1, 0.2, 0.3] },
    });
    await rm(config);
  });

  it('of train arrive parsed, with the defaults of the schema', async () => {
    expect(await trainOptionsOf()).toMatchObject({
      ...{ output: 'out.onnx', batchSize: 128, optimizer: 'adamw', schedule: 'cosine', temperature: 1 },
      ...{ augment: [], balance: false, resume: false, force: false },
    });
    const flags =
      '--epochs 3 --steps 50 --max-time 1.5h --optimizer sgd --lr 1e-2 --schedule step --warmup 0 --weight-decay 0 ' +
      '--momentum 0.8 --clip-norm 1 --accumulate 2 --ema 0.99 --loss kl --temperature 4 --metric f1-macro --label-smoothing 0.1 --balance ' +
      '--augment crop,flip --patience 4 --batch-norm frozen --classes 7 --width 0.5 --input-size 64 --channels 1 --batch-size 16 --run-dir r --resume --force';
    expect(await trainOptionsOf(...flags.split(' '))).toMatchObject({
      ...{ epochs: 3, steps: 50, maxTime: 5400, optimizer: 'sgd', lr: 0.01, schedule: 'step', warmup: 0 },
      ...{ weightDecay: 0, momentum: 0.8, clipNorm: 1, accumulate: 2, ema: 0.99, loss: 'kl', labelSmoothing: 0.1 },
      ...{ temperature: 4, metric: 'f1-macro' },
      ...{ balance: true, augment: ['crop', 'flip'], patience: 4, batchNorm: 'frozen', batchSize: 16 },
      ...{ classes: 7, width: 0.5, inputSize: 64, channels: 1 },
      ...{ runDir: 'r', resume: true, force: true },
    });
  });

  it('of train come from a configuration file too', async () => {
    const config = join(folder, 't.yaml');
    await writeFile(config, 'max-time: 10m\naugment: [crop, mixup]\nlr: 1e-4\n');
    expect(await trainOptionsOf('--config', config)).toMatchObject({
      ...{ maxTime: 600, augment: ['crop', 'mixup'], lr: 1e-4 },
    });
    await rm(config);
  });
});
