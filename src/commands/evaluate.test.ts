import { mkdtemp, mkdir, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import type { ModelProto } from 'onnx-buf';
import * as sealed from '../data/sealed-test.js';
import { saveModel } from '../node/model-file.js';
import { evaluateReportSchema } from '../report/report.js';
import { writeNpz } from '../data/npz-write.js';
import { DataType } from '../onnx/dtypes.js';
import { makeTensor } from '../onnx/tensor.js';
import { node } from '../testing/rich-model.js';
import { convNet, linearNet, npzOf } from '../testing/tiny-net.js';
import { evaluateModels } from './evaluate.js';
import { dataOptionsSchema } from './options.js';
import { openWorkspace } from './workspace.js';

let folder: string;
const at = (name: string): string => join(folder, name);
const QUICK = { latencyRuns: 2, batchSizes: [1, 4] };

async function modelAt(name: string, model: ModelProto): Promise<string> {
  await saveModel(model, at(name), { force: true });
  return at(name);
}

/** Samples of three scores; class of sample i is i % 3, and `wrong` of them have another top score. */
function scores(count: number, wrong: number): { values: Float32Array; labels: number[] } {
  const labels = Array.from({ length: count }, (_, i) => i % 3);
  const values = Float32Array.from({ length: 3 * count }, (_, i) => {
    const sample = Math.floor(i / 3);
    const top = sample < wrong ? (labels[sample] + 1) % 3 : labels[sample];
    return i % 3 === top ? 1 : 0;
  });
  return { values, labels };
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'evaluate-'));
  const train = scores(30, 0);
  const test = scores(20, 5);
  await writeFile(at('train.npz'), npzOf('x', [3], train.values, train.labels));
  await writeFile(at('test.npz'), npzOf('x', [3], test.values, test.labels));
  await writeFile(at('unlabelled.npz'), npzOf('x', [3], train.values));
  await writeFile(
    at('wrong-labels.npz'),
    npzOf(
      'x',
      [3],
      train.values,
      train.labels.map((label) => label + 1),
    ),
  );
  await modelAt(
    'same.onnx',
    linearNet([
      [1, 0, 0],
      [0, 1, 0],
      [0, 0, 1],
    ]),
  );
  // Takes class 2 for class 1.
  await modelAt(
    'mixed.onnx',
    linearNet([
      [1, 0, 0],
      [0, 0, 0],
      [0, 1, 1],
    ]),
  );
});
afterAll(() => rm(folder, { recursive: true, force: true }));

describe('evaluateModels', () => {
  it('measures files side by side on TEST, opened once', async () => {
    const opened = vi.spyOn(sealed, 'openTest');
    const stages = new Set<string>();
    const { report } = await evaluateModels([at('same.onnx'), at('mixed.onnx')], {
      data: at('train.npz'),
      test: at('test.npz'),
      threads: 1,
      ...QUICK,
      onProgress: ({ stage }) => stages.add(stage),
    });
    expect(opened).toHaveBeenCalledTimes(1);
    opened.mockRestore();
    expect(evaluateReportSchema.parse(report)).toEqual(report);
    expect(report.data?.samples).toEqual({ train: 27, val: 3, calib: 27, test: 20 });
    const [same, mixed] = report.files;
    expect(same.metric).toEqual({ name: 'top1', value: 0.75, split: 'test', samples: 20 });
    // Right: samples 0, 1, 3, 4 of the five wrong ones by luck, and the five later ones of class 0.
    expect(mixed.metric).toEqual({ name: 'top1', value: 9 / 20, split: 'test', samples: 20 });
    // The same class as the first file wherever that says 0: samples 2, 6, 9, 12, 15, 18.
    expect(mixed.metrics).toEqual([{ name: 'agreement', value: 6 / 20, split: 'test', samples: 20 }]);
    for (const file of report.files) {
      expect(file).toMatchObject({ params: 9, macs: 9 });
      expect(file.bytes).toBeGreaterThan(0);
      expect(file.latencies?.map(({ batch }) => batch)).toEqual([1, 4]);
      expect(file.latency).toMatchObject({ batch: 1, threads: 1, provider: 'cpu' });
      expect(file.latency!.runs).toBeGreaterThanOrEqual(2);
    }
    expect([...stages]).toEqual(['open', 'read files', 'evaluate on test', 'latency, batch 1', 'latency, batch 4']);
  });

  it('keeps a tenth of the data for TEST when there is no other', async () => {
    const { report } = await evaluateModels([at('same.onnx')], { data: at('train.npz'), ...QUICK });
    expect(report.data?.samples).toMatchObject({ train: 24, val: 3, test: 3 });
    expect(report.files[0].metric).toMatchObject({ value: 1, samples: 3 });
  });

  it('compares with the first file where there are no labels', async () => {
    const { report } = await evaluateModels([at('same.onnx'), at('same.onnx')], {
      data: at('unlabelled.npz'),
      ...QUICK,
    });
    expect(report.files[0].metric).toBeUndefined();
    expect(report.files[1].metric).toMatchObject({ name: 'agreement', value: 1 });
  });

  it('feeds a model of fixed batch in its own batches', async () => {
    await modelAt('fixed.onnx', convNet(4));
    const values = Float32Array.from({ length: 33 * 192 }, (_, i) => Math.sin(i));
    await writeFile(
      at('images.npz'),
      npzOf(
        'image',
        [3, 8, 8],
        values,
        Array.from({ length: 33 }, (_, i) => i % 5),
      ),
    );
    const { report } = await evaluateModels([at('fixed.onnx')], { data: at('images.npz'), latencyRuns: 2 });
    expect(report.files[0]).toMatchObject({ macs: 64 * (4 * 27 + 36 + 16) + 20, latency: { batch: 4 } });
    expect(report.files[0].latencies).toBeUndefined();
    await modelAt('free.onnx', convNet());
    const free = await evaluateModels([at('free.onnx')], { data: at('images.npz'), ...QUICK });
    expect(free.report.files[0].metric).toEqual(report.files[0].metric);
    expect(free.report.files[0].macs).toBe(report.files[0].macs);
  });

  it('holds every file against a teacher, on the same TEST that is opened once', async () => {
    const opened = vi.spyOn(sealed, 'openTest');
    const stages = new Set<string>();
    const { report } = await evaluateModels([at('same.onnx'), at('mixed.onnx')], {
      ...{ data: at('train.npz'), test: at('test.npz'), teacher: at('same.onnx'), ...QUICK },
      onProgress: ({ stage }) => stages.add(stage),
    });
    expect(opened).toHaveBeenCalledTimes(1);
    opened.mockRestore();
    expect(evaluateReportSchema.parse(report)).toEqual(report);
    expect(report.teacher).toBe(at('same.onnx'));
    expect(stages).toContain('fidelity');
    const [same, mixed] = report.files.map(({ fidelity }) => fidelity!);
    expect(same).toMatchObject({ split: 'test', samples: 20, divergence: 0, agreement: 1, confidence: 1, probed: 20 });
    expect(same.cka).toBeCloseTo(1, 10);
    // As `agreement` with the first file, which is the teacher here; it gets 15 right, and both say class 0 five times of them.
    expect(mixed.agreement).toBe(report.files[1].metrics?.[0].value);
    expect(mixed.agreementWhenRight).toBeCloseTo(5 / 15, 10);
    expect(mixed.divergence).toBeGreaterThan(0.1);
  });

  it('takes a teacher in memory with other names of outputs, and says where features cannot be compared', async () => {
    const teacher = linearNet([
      [2, 0, 0],
      [0, 2, 0],
      [0, 0, 2],
    ]);
    teacher.graph!.node[0].output = ['answer'];
    teacher.graph!.output[0].name = 'answer';
    const evaluated = await evaluateModels([at('same.onnx')], { data: at('train.npz'), teacher, ...QUICK });
    expect(evaluated.report.teacher).toBe('the teacher, in memory');
    // Three samples of TEST.
    expect(evaluated.report.files[0].fidelity).toMatchObject({ samples: 3, agreement: 1 });
    expect(evaluated.report.files[0].fidelity).not.toHaveProperty('cka');
    expect(evaluated.report.warnings?.join()).toMatch(/features of .*same.onnx and of the teacher were not compared/);
    const { report } = await evaluateModels([at('same.onnx')], { data: at('train.npz'), ...QUICK });
    expect(report).not.toHaveProperty('teacher');
    expect(report.files[0]).not.toHaveProperty('fidelity');
  });

  it('refuses a teacher that is no model, takes other inputs or knows other classes, before it measures', async () => {
    await modelAt('inputs.onnx', linearNet([[1], [2], [3], [4]]));
    await modelAt(
      'classes.onnx',
      linearNet([
        [1, 0, 0, 0],
        [0, 1, 0, 0],
        [0, 0, 1, 0],
      ]),
    );
    const refused = async (teacher: string): Promise<unknown> => {
      const stages: string[] = [];
      const error = await evaluateModels([at('same.onnx')], {
        ...{ data: at('train.npz'), teacher, ...QUICK },
        onProgress: ({ stage }) => stages.push(stage),
      }).catch((reason: unknown) => reason);
      expect(stages.filter((stage) => stage.startsWith('evaluate') || stage.startsWith('latency'))).toEqual([]);
      return error;
    };
    const message = (pattern: RegExp): unknown => expect.stringMatching(pattern);
    expect(await refused(at('none.onnx'))).toMatchObject({ code: 'io', node: at('none.onnx') });
    expect(await refused(at('train.npz'))).toMatchObject({ code: 'bad-input', node: at('train.npz') });
    expect(await refused(at('inputs.onnx'))).toMatchObject({
      ...{ code: 'bad-input', message: message(/inputs.onnx takes x float32 \[N, 4\].*same samples/) },
    });
    expect(await refused(at('classes.onnx'))).toMatchObject({
      ...{ code: 'bad-input', message: message(/classes.onnx has 4 classes, .*same.onnx has 3/) },
    });
    const other = evaluateModels([at('same.onnx'), at('inputs.onnx')], {
      ...{ data: at('train.npz'), teacher: at('same.onnx'), ...QUICK },
    });
    await expect(other).rejects.toThrow(/inputs.onnx takes .*, but .*same.onnx takes .*same samples/);
    expect(await refused('')).toMatchObject({ code: 'bad-input', message: message(/teacher: must be a model/) });
  });

  it('says that other targets are not run here', async () => {
    const { report } = await evaluateModels([at('same.onnx')], { data: at('train.npz'), target: 'wasm', ...QUICK });
    expect(report.warnings?.join()).toMatch(/native CPU .* wasm/);
  });

  it('refuses what cannot be measured, naming it', async () => {
    const refuse = (models: string[], options: Parameters<typeof evaluateModels>[1]) =>
      expect(evaluateModels(models, { ...QUICK, ...options })).rejects;
    const data = at('train.npz');
    await refuse([at('none.onnx')], { data }).toMatchObject({ code: 'io', node: at('none.onnx') });
    await refuse([at('same.onnx')], { data: at('none.npz') }).toMatchObject({
      code: 'bad-input',
      node: at('none.npz'),
    });
    await refuse([], { data }).toMatchObject({ code: 'bad-input' });
    await refuse([at('same.onnx')], { data: '' }).toMatchObject({ code: 'bad-input' });
    await refuse([at('same.onnx')], { data: at('wrong-labels.npz') }).toThrow(
      /label 3 of sample 2 in .*wrong-labels.npz .* 3 classes \(0 to 2\)/,
    );
    await modelAt('wide.onnx', linearNet([[1], [2], [3], [4]]));
    await refuse([at('wide.onnx')], { data }).toThrow(/shape \[30, 3\].*expects \[N, 4\]/);
    await refuse([at('same.onnx'), at('wide.onnx')], { data }).toThrow(
      /wide.onnx takes x float32 \[N, 4\].*same samples/,
    );
    await writeFile(at('broken.onnx'), 'no model');
    await refuse([at('same.onnx'), at('broken.onnx')], { data }).toMatchObject({
      code: 'bad-input',
      node: at('broken.onnx'),
    });
  });

  it('refuses the same data for training and test, also behind a link', async () => {
    await symlink(at('train.npz'), at('link.npz'));
    for (const test of [at('train.npz'), at('link.npz')]) {
      await expect(evaluateModels([at('same.onnx')], { data: at('train.npz'), test })).rejects.toThrow(
        /both --data and --test/,
      );
    }
  });

  it('ends on abort', async () => {
    const controller = new AbortController();
    const { signal } = controller;
    const onProgress = ({ stage }: { stage: string }): void => {
      if (stage.startsWith('evaluate')) controller.abort();
    };
    await expect(
      evaluateModels([at('same.onnx')], { data: at('train.npz'), signal, onProgress }),
    ).rejects.toMatchObject({ code: 'aborted' });
  });
});

describe('openWorkspace', () => {
  it('feeds single samples to a model that works for no other batch than its exporter saw', async () => {
    const model = linearNet([
      [1, 0, 0],
      [0, 1, 0],
      [0, 0, 1],
    ]);
    model.graph!.node[0].output = ['product'];
    model.graph!.node.push(node('Reshape', ['product', 'shape'], ['scores']));
    model.graph!.initializer.push(makeTensor('shape', DataType.INT64, [2], [1, 3]));
    await modelAt('single.onnx', model);
    const workspace = await openWorkspace(at('single.onnx'), dataOptionsSchema.parse({ data: at('train.npz') }));
    expect(workspace.fixedBatch).toBe(1);
    expect(workspace.notes.join()).toMatch(/one sample at a time/);
    for await (const batch of workspace.batch(workspace.working.val)) expect(batch.feeds.x.dims).toEqual([1, 3]);
    await workspace.close();
    const { report } = await evaluateModels([at('single.onnx')], {
      data: at('train.npz'),
      test: at('test.npz'),
      ...QUICK,
    });
    expect(report.files[0].metric?.value).toBe(0.75);
    expect(report.warnings?.join()).toMatch(/batches of 1 only; other batch sizes were not timed/);
  });

  it('takes the preprocessing of a Hugging Face folder, and flags over it', async () => {
    await mkdir(at('hub/onnx'), { recursive: true });
    await saveModel(convNet(), at('hub/onnx/model.onnx'));
    await writeFile(
      at('hub/preprocessor_config.json'),
      JSON.stringify({ do_normalize: true, image_mean: [0.5], image_std: [0.25], do_rescale: true }),
    );
    const pixels = { type: 'uint8' as const, dims: [10, 8, 8, 3], data: new Uint8Array(1920).fill(255) };
    await writeFile(at('pixels.npz'), writeNpz({ image: pixels }));
    const firstPixel = async (preprocess: object): Promise<number> => {
      const options = dataOptionsSchema.parse({ data: at('pixels.npz'), preprocess });
      const workspace = await openWorkspace(at('hub'), options);
      await workspace.close();
      return Number(workspace.feedsFor(1).image.data[0]);
    };
    expect(await firstPixel({})).toBeCloseTo((1 - 0.5) / 0.25);
    expect(await firstPixel({ mean: [0.75] })).toBeCloseTo((1 - 0.75) / 0.25);
    await expect(firstPixel({ mean: [300], scale: undefined })).resolves.toBeCloseTo((1 - 300) / 0.25);
  });
});
