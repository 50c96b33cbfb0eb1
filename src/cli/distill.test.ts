/** `distill` through the whole program: what it writes, and what it refuses with one message and nothing touched. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ModelProto } from 'onnx-buf';
import { withFields } from '../onnx/message.js';
import type { DistillReport } from '../report/report.js';
import { workbench, type Workbench } from '../testing/command-line.js';
import { blockNet, chainNet, CLASSES, feedOf } from '../testing/distillation-models.js';
import { Builder } from '../testing/flow-models.js';
import { run as runModel } from '../testing/graph-writing.js';
import { linearNet, npzOf } from '../testing/tiny-net.js';
import { tinyResNet } from '../testing/tiny-models.js';

const SAMPLES = 100;
const TEACHER = blockNet(2, 3, 1);
const STUDENT = blockNet(2, 2, 2);
let bench: Workbench;

/** x -> pooled -> one Gemm. */
function headOnly(classes: number): ModelProto {
  const b = new Builder(17, 3);
  const features = b.op('Flatten', [b.op('GlobalAveragePool', [b.input('x', [2, 4, 4])])]);
  return b.done(b.op('Gemm', [features, b.weight([2, classes]), b.weight([classes], 0.1)]));
}

/** A number per pixel instead of scores. */
function pixels(): ModelProto {
  const b = new Builder(17, 3);
  return b.done(b.conv(b.input('x', [2, 4, 4]), [2, 2, 3, 3]));
}

/** Of batches of 1 only. */
function fixed(model: ModelProto): ModelProto {
  const copy = withFields(model, {});
  for (const { type } of [...copy.graph!.input, ...copy.graph!.output])
    if (type?.value.case === 'tensorType' && type.value.value.shape)
      type.value.value.shape.dim[0] = withFields(type.value.value.shape.dim[0]!, {
        value: { case: 'dimValue', value: 1n },
      });
  return copy;
}

beforeAll(async () => {
  bench = await workbench();
  const values = feedOf(TEACHER, SAMPLES).x!.data as Float32Array;
  const scores = Object.values(await runModel(TEACHER, feedOf(TEACHER, SAMPLES)))[0]!.data as Float32Array;
  const labels = Array.from({ length: SAMPLES }, (_, n) => {
    const row = scores.subarray(n * CLASSES, (n + 1) * CLASSES);
    return row.indexOf(Math.max(...row));
  });
  await bench.write('data.npz', npzOf('x', [2, 4, 4], values, labels));
  await bench.write(
    'permuted.npz',
    npzOf(
      'x',
      [2, 4, 4],
      values,
      labels.map((label) => (label + 1) % CLASSES),
    ),
  );
  await bench.write('unlabelled.npz', npzOf('x', [2, 4, 4], values));
  await bench.model('teacher.onnx', TEACHER);
  await bench.model('student.onnx', STUDENT);
  await bench.model('chain.onnx', chainNet(4, 2));
  await bench.model('head.onnx', headOnly(CLASSES));
  await bench.model('four.onnx', headOnly(4));
  await bench.model('other.onnx', tinyResNet());
  await bench.model(
    'linear.onnx',
    linearNet([
      [1, 0],
      [0, 1],
    ]),
  );
  await bench.model('pixels.onnx', pixels());
  await bench.model('fixed-teacher.onnx', fixed(blockNet(2, 3, 1)));
  await bench.model('fixed-student.onnx', fixed(blockNet(2, 2, 2)));
  await bench.write('out.onnx', 'an earlier result');
});
afterAll(() => bench.remove());

type Given = Partial<Record<'teacher' | 'student' | 'data' | 'output', string>>;

const argsFor = (
  { teacher = 'teacher', student = 'student.onnx', data = 'data', output = 'out' }: Given,
  flags: readonly string[],
) => [
  ...['distill', '--teacher', bench.at(`${teacher}.onnx`), '--data', bench.at(`${data}.npz`)],
  ...['--student', student.includes('.') ? bench.at(student) : student, '-o', bench.at(`${output}.onnx`), '--force'],
  ...[
    '--epochs',
    '1',
    '--batch-size',
    '16',
    '--calib-samples',
    '32',
    '--latency-runs',
    '2',
    '--threads',
    '1',
    ...flags,
  ],
];

async function refuses(message: RegExp, given: Given, flags: readonly string[] = []): Promise<void> {
  const { code, stdout, stderr, changed } = await bench.run(argsFor(given, ['--quiet', ...flags]));
  expect(stderr.replaceAll(`${bench.path}/`, '')).toMatch(message);
  expect(stderr).toMatch(/^error: [^\n]+\n( {2}node: [^\n]+\n)?( {2}hint: [^\n]+\n)?$/);
  expect({ code, stdout, changed }).toEqual({ code: 2, stdout: '', changed: [] });
}

async function reportOf(given: Given, flags: readonly string[] = []): Promise<DistillReport> {
  const { code, stdout, stderr } = await bench.run(
    argsFor({ output: 'made', ...given }, ['--json', '--quiet', ...flags]),
  );
  expect(stderr).toBe('');
  expect(code).toBe(0);
  return JSON.parse(stdout) as DistillReport;
}

describe('flow-compress distill', () => {
  it('trains a file and says what it became beside its teacher', async () => {
    const { code, stdout, changed } = await bench.run(argsFor({ output: 'made' }, ['--quiet']));
    expect({ code, changed }).toEqual({ code: 0, changed: ['made.onnx'] });
    expect(stdout).toContain('agreement with the teacher');
    expect(stdout).not.toContain('the original');
  });

  it('goes by a mapping that was made by hand', async () => {
    const { mapping } = await reportOf({});
    const [first, second] = mapping!.map(({ student }) => student);
    const last = (await reportOf({ student: 'teacher.onnx' }, ['--mapping', 'depth'])).mapping![1]!.teacher;
    const path = await bench.write('mapping.json', JSON.stringify({ [first!]: last, [second!]: last }));
    const byHand = await reportOf({}, ['--mapping', path]);
    expect(byHand.mapping!.map(({ teacher }) => teacher)).toEqual([last, last]);
    expect(byHand.settings).toMatchObject({ mapping: path });
  });

  it('teaches and learns from networks of one layer where no layers are compared', async () => {
    await reportOf({ student: 'head.onnx' }, ['--method', 'kd']);
    await reportOf({ teacher: 'head', student: 'student.onnx', data: 'unlabelled' }, ['--method', 'kd']);
    await reportOf({ student: 'head.onnx' }, ['--method', 'crd-lite']);
  });
});

describe('flow-compress distill refuses', () => {
  it.each<[string, RegExp, Given, string[]]>([
    ['a student of other inputs', /x in data\.npz has shape \[100, 2, 4, 4\]/, { student: 'linear.onnx' }, []],
    [
      'a teacher of other inputs',
      /student\.onnx takes x float32 \[[^\]]*2, 4, 4\], but other\.onnx takes x float32 \[[^\]]*3, 8, 8\]/,
      { teacher: 'other' },
      [],
    ],
    ['other numbers of classes', /The teacher tells 4 classes apart, the student 3\./, { teacher: 'four' }, []],
    [
      'a teacher that is worse than chance',
      /The teacher is right on 0\.0 % of VAL: no better than chance/,
      { data: 'permuted' },
      [],
    ],
    [
      'a student without class scores',
      /The student gives [^\n]* \[N, 2, 4, 4\], the teacher [^\n]* \[N, 3\]\.\n {2}node: teacher\.onnx/,
      { student: 'pixels.onnx', data: 'unlabelled' },
      [],
    ],
    [
      'a teacher without class scores',
      /The student has class scores and the teacher none\.\n {2}node: pixels\.onnx/,
      { teacher: 'pixels' },
      [],
    ],
    [
      'a student of fixed batches',
      /The model takes batches of 1 only\.\n {2}node: fixed-student\.onnx/,
      { student: 'fixed-student.onnx' },
      [],
    ],
    [
      'a teacher of fixed batches',
      /The teacher takes batches of 1 only\.\n {2}node: fixed-teacher\.onnx/,
      { teacher: 'fixed-teacher' },
      [],
    ],
    [
      'a student of one layer where layers are compared',
      /The student has no layers that could be mapped.*\n {2}hint: .*compares outputs only/,
      { student: 'head.onnx' },
      [],
    ],
    [
      'a teacher of one layer where layers are compared',
      /The teacher has no layers that could be mapped/,
      { teacher: 'head', data: 'unlabelled' },
      [],
    ],
    [
      'a student that is neither file nor architecture',
      /resnet9 is neither a file nor an architecture/,
      { student: 'resnet9' },
      [],
    ],
    ['a teacher that is not there', /gone\.onnx does not exist/, { teacher: 'gone' }, []],
    [
      'to learn nothing',
      /Without labels there is nothing that the student could learn alone/,
      { data: 'unlabelled' },
      ['--method', 'plain'],
    ],
    ['an unknown method', /--method/, {}, ['--method', 'magic']],
    ['a metric of labels without any', /--metric top1 needs labels\./, { data: 'unlabelled' }, ['--metric', 'top1']],
    [
      'smoothing of labels without any',
      /--label-smoothing needs labels\./,
      { data: 'unlabelled' },
      ['--label-smoothing', '0.1'],
    ],
    [
      'layers to select along the depth',
      /--select: selective chooses layers/,
      {},
      ['--flow', 'integrated', '--select', 'selective'],
    ],
    ['its teacher as its output', /./, { output: 'teacher' }, []],
  ])('%s', async (_, message, given, flags) => {
    await refuses(message, given, flags);
  });

  it('a missing student or teacher', async () => {
    for (const flag of ['--student', '--teacher']) {
      const args = argsFor({}, ['--quiet']);
      args.splice(args.indexOf(flag), 2);
      const { code, stderr, changed } = await bench.run(args);
      expect(stderr).toMatch(new RegExp(`^error: ${flag} is (missing|required)\\.\n {2}hint: `));
      expect({ code, changed }).toEqual({ code: 2, changed: [] });
    }
  });

  it('mappings that do not fit', async () => {
    const { mapping } = await reportOf({}, ['--mapping', 'depth']);
    const [one, two] = mapping!;
    for (const [content, message] of [
      ['no JSON', /mapping\.json is no mapping of layers: /],
      ['["a"]', /A mapping of layers is an object/],
      [{ [one!.student]: one!.teacher }, /leaves out layers of the student: /],
      [{ [one!.student]: 'nowhere', [two!.student]: two!.teacher }, /layers that the teacher does not have: nowhere/],
      [
        { [one!.student]: one!.teacher, [two!.student]: two!.teacher, more: one!.teacher },
        /layers that the student does not have: more/,
      ],
      [{ [one!.student]: two!.teacher, [two!.student]: one!.teacher }, /is out of order/],
    ] as const) {
      const text = typeof content === 'string' ? content : JSON.stringify(content);
      await refuses(message, {}, ['--mapping', await bench.write('mapping.json', text)]);
    }
    await refuses(/deep is no mapping of layers: .*ENOENT/, {}, ['--mapping', 'deep']);
  });

  it('folders of answers that nothing could come from, or that belong to something else', async () => {
    const cache = ['--cache-teacher', bench.at('answers')];
    await refuses(/No answer of the teacher comes again/, {}, [...cache, '--augment', 'flip']);
    await refuses(/No answer of the teacher comes again.*\n.*leave mixup out/, {}, [
      ...cache,
      ...['--augment', 'mixup', '--rounds', '2'],
    ]);
    await refuses(/No answer of the teacher comes again.*\n.*use fad or kd/, {}, [...cache, '--method', 'features']);
    await refuses(/Nothing is asked of the teacher/, {}, [...cache, '--method', 'plain']);
    await reportOf({}, [...cache, '--method', 'kd', '--epochs', '2']);
    const kept = [...(await bench.contents()).keys()].filter((name) => name.startsWith('answers/'));
    expect(kept).toEqual(['answers/answers.json', 'answers/round-0.f32']);
    await reportOf({ student: 'chain.onnx' }, [...cache, '--method', 'kd']);
    await refuses(/has the answers of another teacher/, {}, [
      ...cache,
      '--method',
      'kd',
      '--test',
      bench.at('permuted.npz'),
    ]);
    await refuses(/has the answers of another teacher/, { data: 'unlabelled' }, [...cache, '--method', 'kd']);
    await refuses(/has the answers of another teacher/, {}, cache);
  });
});
