/** `distill` of models without class scores through the whole program: values, generative models, inputs of other names. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ModelProto } from 'onnx-buf';
import { writeNpz } from '../data/npz-write.js';
import type { HostTensor } from '../runtime/engine.js';
import type { DistillReport, EvaluateReport } from '../report/report.js';
import { workbench, type Workbench } from '../testing/command-line.js';
import { blockNet } from '../testing/distillation-models.js';
import { Builder } from '../testing/flow-models.js';
import { run as runModel } from '../testing/graph-writing.js';
import { normals } from '../testing/tiny-models.js';

const SAMPLES = 100;
let bench: Workbench;

/** x -> Relu -> y [N, 3], no class scores by its name. */
function regression(hidden: number, seed: number, input = 'x'): ModelProto {
  const b = new Builder(17, seed);
  const inner = b.op('Relu', [b.dense(b.input(input, [6]), 6, hidden)]);
  const inside = b.op('Relu', [b.dense(inner, hidden, hidden)]);
  return named(b, { embedding: b.dense(inside, hidden, 3) });
}

function named(b: Builder, outputs: Record<string, ReturnType<Builder['op']>>): ModelProto {
  const made = Object.entries(outputs).map(([name, value]) => {
    const [output] = b.graph.insert({ opType: 'Identity', inputs: [value], outputs: [name] }).outputs;
    return output!;
  });
  return b.done(...made);
}

/** x [N, 2, 4, 4] flat or not -> reconstruction, mean, log_variance. */
function vae(hidden: number, seed: number): ModelProto {
  const b = new Builder(17, seed);
  const x = b.op('Relu', [b.dense(b.input('x', [32]), 32, hidden)]);
  const [mean, log] = [
    b.dense(x, hidden, 3, b.weight([hidden, 3], 0.2)),
    b.dense(x, hidden, 3, b.weight([hidden, 3], 0.1)),
  ];
  const decoded = b.op('Relu', [b.dense(mean, 3, hidden)]);
  return named(b, { reconstruction: b.dense(decoded, hidden, 32), mean, log_variance: log });
}

function generator(hidden: number, seed: number): ModelProto {
  const b = new Builder(17, seed);
  const inner = b.op('Relu', [b.dense(b.input('z', [4]), 4, hidden)]);
  return named(b, { image: b.op('Tanh', [b.dense(inner, hidden, 32)]) });
}

/** x [N, 2, 4, 4], t [N] -> noise. */
function denoiser(width: number, seed: number): ModelProto {
  const b = new Builder(17, seed);
  const x = b.input('x', [2, 4, 4]);
  const time = b.op('Unsqueeze', [b.input('t', []), b.ints([1, 2, 3])]);
  const inner = b.op('Relu', [b.op('Add', [b.conv(x, [width, 2, 3, 3]), time])]);
  return named(b, { noise: b.conv(inner, [2, width, 3, 3]) });
}

const tensor = (dims: readonly number[], data: Float32Array): HostTensor => ({ type: 'float32', dims, data });

beforeAll(async () => {
  bench = await workbench();
  const values = normals(SAMPLES * 6, 5);
  const wanted = Object.values(await runModel(regression(7, 1), { x: tensor([SAMPLES, 6], values) }))[0]!;
  await bench.write('plain.npz', writeNpz({ x: tensor([SAMPLES, 6], values) }));
  await bench.write(
    'targets.npz',
    writeNpz({
      ...{
        x: tensor([SAMPLES, 6], values),
        embedding: tensor([SAMPLES, 3], Float32Array.from(wanted.data as Float32Array)),
      },
    }),
  );
  await bench.write('images.npz', writeNpz({ x: tensor([SAMPLES, 32], normals(SAMPLES * 32, 6)) }));
  await bench.write('grids.npz', writeNpz({ x: tensor([SAMPLES, 2, 4, 4], normals(SAMPLES * 32, 6)) }));
  await bench.model('teacher.onnx', regression(7, 1));
  await bench.model('student.onnx', regression(4, 2));
  await bench.model('renamed.onnx', regression(7, 1, 'other'));
  await bench.model('vae.onnx', vae(12, 1));
  await bench.model('generator.onnx', generator(12, 1));
  await bench.model('denoiser.onnx', denoiser(8, 1));
  await bench.model('classifier.onnx', blockNet(1, 3, 3));
});
afterAll(() => bench.remove());

const COMMON = ['--calib-samples', '32', '--latency-runs', '2', '--threads', '1', '--batch-size', '16', '--force'];

const argsFor = (teacher: string, student: string, data: string, flags: readonly string[]): string[] => [
  ...['distill', '--teacher', bench.at(teacher), '--student', student.includes('.') ? bench.at(student) : student],
  ...['--data', data.startsWith('noise') ? data : bench.at(data), '-o', bench.at('made.onnx'), ...COMMON, ...flags],
];

async function reportOf(
  teacher: string,
  student: string,
  data: string,
  flags: readonly string[],
): Promise<DistillReport> {
  const { code, stdout, stderr } = await bench.run([
    ...argsFor(teacher, student, data, flags),
    ...['--json', '--quiet', ...(flags.includes('--steps') ? [] : ['--epochs', '1'])],
  ]);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  return JSON.parse(stdout) as DistillReport;
}

async function refuses(
  message: RegExp,
  teacher: string,
  student: string,
  data: string,
  flags: string[],
): Promise<void> {
  const { code, stdout, stderr, changed } = await bench.run([
    ...argsFor(teacher, student, data, flags),
    ...['--quiet', '--epochs', '1'],
  ]);
  expect(stderr.replaceAll(`${bench.path}/`, '')).toMatch(message);
  expect(stderr).toMatch(/^error: [^\n]+\n( {2}node: [^\n]+\n)?( {2}hint: [^\n]+\n)?$/);
  expect({ code, stdout, changed }).toEqual({ code: 2, stdout: '', changed: [] });
}

describe('distill of values', () => {
  it('comes closer to the teacher the longer it learns, by the squared error', async () => {
    const [short, long] = [
      await reportOf('teacher.onnx', 'student.onnx', 'plain.npz', ['--method', 'kd', '--steps', '2', '--lr', '0.02']),
      await reportOf('teacher.onnx', 'student.onnx', 'plain.npz', ['--method', 'kd', '--steps', '200', '--lr', '0.02']),
    ];
    expect(short.fidelity!.measure).toBe('relative-error');
    expect(long.fidelity!.divergence).toBeLessThan(0.5 * short.fidelity!.divergence);
    expect(long.fidelity!.cosine!).toBeGreaterThan(short.fidelity!.cosine!);
    expect(long.fidelity!.agreement).toBeUndefined();
  });

  it.each(['fad', 'features', 'relations', 'kd', 'plain'])('learns targets too, by %s', async (method) => {
    const { history, fidelity } = await reportOf('teacher.onnx', 'student.onnx', 'targets.npz', ['--method', method]);
    expect(Object.keys(history.at(-1)!.terms)).toContain('task');
    expect(fidelity!.error!.of).toBe('target');
    expect(fidelity!.error!.teacher).toBeLessThan(1e-9);
    expect(fidelity!.error!.student).toBeGreaterThan(1e-3);
  });

  it('is what evaluate measures too', async () => {
    const { code, stdout } = await bench.run([
      ...['evaluate', bench.at('teacher.onnx'), bench.at('student.onnx'), '--teacher', bench.at('teacher.onnx')],
      ...['--data', bench.at('plain.npz'), '--latency-runs', '2', '--threads', '1', '--json', '--quiet'],
    ]);
    expect(code).toBe(0);
    const { files } = JSON.parse(stdout) as EvaluateReport;
    expect(files[0]!.fidelity).toMatchObject({ measure: 'relative-error', divergence: 0, cosine: 1 });
    expect(files[1]!.fidelity!.divergence).toBeGreaterThan(0.01);
  });

  it('takes class scores for values where outputs are named', async () => {
    const { fidelity, settings } = await reportOf('classifier.onnx', 'classifier.onnx', 'grids.npz', [
      ...['--method', 'kd', '--outputs', blockNet(1, 3, 3).graph!.output[0]!.name],
    ]);
    expect(fidelity!.measure).toBe('relative-error');
    expect(settings).toHaveProperty('outputs');
  });

  it.each<[string, RegExp, string[]]>([
    ['to learn nothing', /Without labels there is nothing that the student could learn alone/, ['--method', 'plain']],
    [
      'scores that there are not',
      /topkd compares class scores, which these models have none of/,
      ['--method', 'topkd'],
    ],
    ['to weigh by classes', /--weighting joint compares class scores/, ['--weighting', 'joint', '--mapping', 'depth']],
    ['to make samples of nothing', /Nothing says how the models make samples/, ['--method', 'generative']],
    ['outputs that there are not', /student\.onnx has no output nowhere/, ['--outputs', 'nowhere']],
    ['a schedule that is none', /steep is no noise schedule/, ['--diffusion', 'steep']],
    ['a model that tells no noise', /takes a noisy sample and its step/, ['--diffusion', 'linear:0.001:0.02:50']],
  ])('refuses %s', async (_, message, flags) => {
    await refuses(message, 'teacher.onnx', 'student.onnx', 'plain.npz', flags);
  });
});

describe('distill of generative models', () => {
  const FEATURES = (): string[] => ['--features', bench.at('classifier.onnx'), '--sample-range=-1,1'];

  it('VAE: the graph of the teacher, half as wide, with samples of its decoder', async () => {
    const report = await reportOf('vae.onnx', 'teacher', 'images.npz', [
      ...['--width', '0.5', '--method', 'generative', '--steps', '8', ...FEATURES()],
    ]);
    const { params } = report.before;
    expect(report.after.params! / params!).toBeLessThan(0.55);
    expect(report.settings).toMatchObject({ outputs: ['reconstruction', 'mean', 'log_variance'] });
    expect(Object.keys(report.history.at(-1)!.terms)).toEqual(['task', 'answers', 'posterior', 'prior']);
    const { error, frechet } = report.fidelity!;
    expect(error!.of).toBe('reconstruction');
    expect(frechet!.samples).toBe(10);
    expect(frechet!.studentToReal).toBeGreaterThan(0);
  });

  it('generator: from noise alone, and nothing to learn without its teacher', async () => {
    const { fidelity, history } = await reportOf('generator.onnx', 'teacher', 'noise:200', [
      ...['--width', '0.5', '--method', 'generative', ...FEATURES()],
    ]);
    expect(Object.keys(history.at(-1)!.terms)).toEqual(['answers', 'distance', 'adversarial']);
    expect(fidelity!.error).toBeUndefined();
    expect(fidelity!.frechet!.teacherToReal).toBeUndefined();
    await refuses(/nothing that the student could learn alone/, 'generator.onnx', 'teacher', 'noise:200', [
      ...['--width', '0.5', '--method', 'plain'],
    ]);
  });

  it('diffusion: from clean samples, by a schedule, the same bytes twice', async () => {
    const flags = ['--diffusion', 'linear:0.001:0.2:50', '--draws', '2', '--width', '0.5', '--method', 'generative'];
    const report = await reportOf('denoiser.onnx', 'teacher', 'grids.npz', [
      ...[...flags, ...FEATURES(), '--sample-steps', '3'],
    ]);
    expect(report.fidelity!.error!.of).toBe('noise');
    // Twice 80 samples in batches of 16.
    expect(report.training.steps).toBe(10);
    const before = (await bench.contents()).get('made.onnx');
    await reportOf('denoiser.onnx', 'teacher', 'grids.npz', flags);
    expect((await bench.contents()).get('made.onnx')).toBe(before);
    await reportOf('denoiser.onnx', 'teacher', 'grids.npz', [...flags.slice(0, -1), 'plain']);
  });

  it('chooses a student among narrower teachers', async () => {
    const { candidates, student } = await reportOf('vae.onnx', 'auto', 'images.npz', [
      ...['--steps', '60', '--method', 'generative'],
    ]);
    expect(candidates!.map(({ name }) => name)).toEqual(
      [0.7, 0.5, 0.35, 0.25].map((w) => `vae.onnx, ${String(w)} of the width`),
    );
    expect(candidates!.filter(({ rounds }) => rounds.length > 0).length).toBeGreaterThan(1);
    expect(student).toBe(candidates!.find(({ chosen }) => chosen)!.name);
  });

  it('are measured by evaluate too', async () => {
    const { code, stdout, stderr } = await bench.run([
      ...['evaluate', bench.at('vae.onnx'), '--teacher', bench.at('vae.onnx'), '--data', bench.at('images.npz')],
      ...[...FEATURES(), '--latency-runs', '2', '--threads', '1', '--json', '--quiet'],
    ]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const { error, frechet } = (JSON.parse(stdout) as EvaluateReport).files[0]!.fidelity!;
    expect(error!.student).toBe(error!.teacher);
    expect(frechet!.studentToTeacher).toBeLessThan(1e-6);
    expect(frechet!.studentToReal).toBe(frechet!.teacherToReal);
  });

  it('refuses a classifier that is none, and samples that it cannot see', async () => {
    const flags = ['--width', '0.5', '--method', 'kd', '--features'];
    await refuses(/vae\.onnx is no classifier/, 'vae.onnx', 'teacher', 'images.npz', [...flags, bench.at('vae.onnx')]);
    await refuses(/the --test would measure nothing|given for both/, 'generator.onnx', 'teacher', 'noise:200', [
      ...['--width', '0.5', '--test', 'noise:200'],
    ]);
  });
});

describe('inputs of other names', () => {
  it('are matched by shape, and the report measures the file as it is', async () => {
    const { fidelity, before } = await reportOf('renamed.onnx', 'teacher.onnx', 'plain.npz', [
      ...['--method', 'kd', '--lr', '1e-9'],
    ]);
    expect(fidelity!.divergence).toBeLessThan(1e-6);
    expect(before.macs).toBeGreaterThan(0);
  });

  it('are refused where they are said wrongly', async () => {
    await refuses(/the teacher has no input gone/, 'renamed.onnx', 'student.onnx', 'plain.npz', ['--inputs', 'gone=x']);
    await refuses(/--inputs: must be of the form/, 'renamed.onnx', 'student.onnx', 'plain.npz', ['--inputs', 'gone']);
  });
});
