/** `zoo list` and `zoo build` as users type them. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { commandLine, workbench, type Workbench } from '../testing/command-line.js';

let bench: Workbench;
beforeAll(async () => {
  bench = await workbench();
});
afterAll(() => bench.remove());

describe('zoo list', () => {
  it('prints a table', async () => {
    const { code, stdout, stderr } = await commandLine(['zoo', 'list']);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const lines = stdout.trimEnd().split('\n');
    expect(lines[0]).toMatch(/^name +parameters +MACs +summary$/);
    expect(stdout).toMatch(/^resnet20 +269,722 +40\.6 M {2}ResNet for CIFAR: 3 stages of 3 blocks$/m);
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(120);
  });

  it('prints one JSON object', async () => {
    const { code, stdout } = await commandLine(['zoo', 'list', '--json']);
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({
      command: 'zoo list',
      architectures: expect.arrayContaining([expect.objectContaining({ name: 'lenet5', params: 61_706 })]) as unknown,
    });
  });
});

describe('zoo build', () => {
  it('writes a model with what was asked for and says so in one line', async () => {
    const flags = '--classes 4 --width 0.5 --input-size 16 --channels 1 --seed 1 --shortcut conv'.split(' ');
    const { code, stdout, changed } = await bench.run(['zoo', 'build', 'resnet8', '-o', bench.at('r.onnx'), ...flags]);
    expect(code).toBe(0);
    expect(stdout.replace(`${bench.path}/`, '')).toMatch(
      /^r\.onnx: resnet8, [\d,]+ parameters, \d+ k MACs, [\d.]+ kB\n$/,
    );
    expect(changed).toEqual(['r.onnx']);
  });

  it('prints one JSON object', async () => {
    const args = ['zoo', 'build', 'lenet5', '-o', bench.at('l.onnx'), '--json'];
    const { code, stdout } = await bench.run(args);
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ command: 'zoo build', architecture: 'lenet5', params: 61_706 });
  });

  it('reads a configuration file under the flags', async () => {
    const config = await bench.write('c.yaml', 'classes: 3\ninput-size: 32\nseed: 4\n');
    const args = ['zoo', 'build', 'lenet5', '-o', bench.at('c.onnx'), '--config', config, '--seed', '5', '--json'];
    const { stdout } = await bench.run(args);
    expect(JSON.parse(stdout)).toMatchObject({ seed: 5, options: { classes: 3, inputSize: 32 } });
  });

  it.each<[string[], RegExp]>([
    [['resnet21'], /There is no architecture "resnet21"\.\n {2}hint: Did you mean "resnet20"\?/],
    [['nonsense'], /hint: `flow-compress zoo list` shows all of them/],
    [['resnet20', '--patch-size', '4'], /--patch-size: resnet20 has no such option\.\n {2}hint: Leave it out/],
    [['resnet20', '--classes', '0'], /--classes: .*\(given: 0\)/],
    [['resnet20', '--width', 'x'], /--width must be a number/],
    [['vgg11', '--input-size', '8'], /--input-size: 8 is too small.*\n {2}hint: Give 32\./],
    [['resnet20', '--clases', '4'], /Did you mean --classes/],
  ])('refuses %j with exit code 2', async (args, message) => {
    const { code, stdout, stderr, changed } = await bench.run(['zoo', 'build', ...args, '-o', bench.at('n.onnx')]);
    expect(stderr).toMatch(message);
    expect({ code, stdout, changed }).toEqual({ code: 2, stdout: '', changed: [] });
  });

  it('needs an output, and --force to replace one', async () => {
    expect(await bench.run(['zoo', 'build', 'lenet5'])).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('--output is required') as string,
    });
    const output = await bench.write('mine.onnx', 'mine');
    const refused = await bench.run(['zoo', 'build', 'lenet5', '-o', output, '--json']);
    expect(refused).toMatchObject({ code: 2, changed: [] });
    expect(JSON.parse(refused.stdout)).toMatchObject({ command: 'zoo', error: { code: 'bad-input', exitCode: 2 } });
    const forced = await bench.run(['zoo', 'build', 'lenet5', '-o', output, '--force']);
    expect(forced).toMatchObject({ code: 0, changed: ['mine.onnx'] });
  });
});

describe('zoo', () => {
  it.each([
    [[], /Usage: flow-compress zoo/],
    [['bild'], /unknown command 'bild'\n\(Did you mean build\?\)/],
    [['build'], /missing required argument 'architecture'/],
  ])('%j shows what is possible', async (args, message) => {
    const { code, stdout, stderr } = await commandLine(['zoo', ...args]);
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    expect(stderr).toMatch(message);
  });
});
