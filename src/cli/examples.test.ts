/** The programs in examples/, run as their first lines say, on small models. */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { ModelProto } from 'onnx-buf';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { DataType } from '../onnx/dtypes.js';
import { parameterCount } from '../onnx/parameters.js';
import { decodeModel } from '../onnx/read.js';
import { readFloats } from '../onnx/tensor.js';
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

/** Elements and L1 norms of the initializers, by name. */
function sizesOf({ graph }: ModelProto): Map<string, { count: number; norm: number }> {
  return new Map(
    graph!.initializer.map((tensor) => {
      const values = tensor.dataType === Number(DataType.FLOAT) ? readFloats(tensor) : new Float32Array();
      return [tensor.name, { count: values.length, norm: values.reduce((sum, value) => sum + Math.abs(value), 0) }];
    }),
  );
}

describe('examples', () => {
  it.each([
    ['0', 0, true],
    // No share is above 1.
    ['1.01', 1, false],
  ])('compress a model in memory, and leave no file where less than %s of a class stays', (share, status, written) => {
    const [output, data] = [bench.at(`small-${share}.onnx`), bench.at('data.npz')];
    const found = example('compress-or-refuse', model, data, output, '1.5', '2', share);
    const [, before, after] = /(\d+) -> (\d+) bytes, [\d.]+ of the worst/.exec(found.stdout)!.map(Number);
    expect(before! / after!).toBeGreaterThanOrEqual(1.5);
    expect({ status: found.status, written: existsSync(output) }).toEqual({ status, written });
    if (written) expect(readFileSync(output)).toHaveLength(after!);
    expect(found.stderr).toContain('recover');
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
    const cut = decodeModel(readFileSync(output), output);
    expect(parameterCount(cut)).toBeLessThan(parameterCount(original));
    // Half of the units went, and less than half of the weights' size with them.
    const [before, after] = [sizesOf(original), sizesOf(cut)];
    const shortened = [...after.keys()].filter((name) => after.get(name)!.count < (before.get(name)?.count ?? 0));
    const total = (sizes: typeof before): number => shortened.reduce((sum, name) => sum + sizes.get(name)!.norm, 0);
    expect(total(after) / total(before)).toBeGreaterThan(0.5);
  });
});
