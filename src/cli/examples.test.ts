/** The programs in examples/, run as their first lines say, on small models. */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parameterCount } from '../onnx/parameters.js';
import { decodeModel } from '../onnx/read.js';
import { workbench, type Workbench } from '../testing/command-line.js';
import { normals, tinyResNet } from '../testing/tiny-models.js';
import { npzOf } from '../testing/tiny-net.js';

const SAMPLES = 80;
const original = tinyResNet(17, 16);

let bench: Workbench;
let model: string;

beforeAll(async () => {
  bench = await workbench();
  model = await bench.model('model.onnx', original);
  await bench.write('data.npz', npzOf('x', [3, 8, 8], normals(SAMPLES * 192, 1)));
});

afterAll(() => bench.remove());

function example(name: string, ...args: string[]): { status: number | null; stdout: string; stderr: string } {
  const root = fileURLToPath(new URL('../..', import.meta.url));
  return spawnSync(process.execPath, ['--import', 'tsx', `examples/${name}.ts`, ...args], {
    cwd: root,
    encoding: 'utf8',
  });
}

describe('examples', () => {
  it('compress a model in memory, and leave no file that answers otherwise', () => {
    const [output, data] = [bench.at('small.onnx'), bench.at('data.npz')];
    const { status, stdout, stderr } = example('compress-or-refuse', model, data, output, '1.5', '2');
    const [, before, after, agreement] = /(\d+) -> (\d+) bytes, ([\d.]+) of the worst/.exec(stdout)!.map(Number);
    expect(Number(before) / Number(after)).toBeGreaterThanOrEqual(1.5);
    expect({ status, written: existsSync(output) }).toEqual(
      agreement! >= 0.9 ? { status: 0, written: true } : { status: 1, written: false },
    );
    if (existsSync(output)) expect(readFileSync(output)).toHaveLength(Number(after));
    expect(stderr).toContain('recover');
  });

  it('say why a ratio cannot be had', () => {
    const { status, stderr } = example(
      'compress-or-refuse',
      model,
      bench.at('data.npz'),
      bench.at('no.onnx'),
      '500',
      '0',
    );
    expect({ status, written: existsSync(bench.at('no.onnx')) }).toEqual({ status: 1, written: false });
    expect(stderr).toMatch(/the nearest file has .*kB, not 42 B/);
  });

  it('cut by a rule of their own', () => {
    const output = bench.at('cut.onnx');
    const { status, stdout, stderr } = example('cut-by-hand', model, output);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout).toMatch(/^8 of 16 units of .*\nlike zeros in their place, but for \S+e-\d+\n$/);
    expect(parameterCount(decodeModel(readFileSync(output), output))).toBeLessThan(parameterCount(original));
  });
});
