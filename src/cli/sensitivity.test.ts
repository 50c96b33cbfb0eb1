/** The flow sensitivity and its gradients through the whole program: when they are computed, what the reports say. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ProfiledLayer, QuantizedLayer, SensitivityCheck } from '../report/report.js';
import { listeningTo, workbench, type Workbench } from '../testing/command-line.js';
import { normals, tinyResNet } from '../testing/tiny-models.js';
import { npzOf } from '../testing/tiny-net.js';

const SAMPLES = 40;

let bench: Workbench;
let inputs: string[];

beforeAll(async () => {
  bench = await workbench();
  const labels = Array.from({ length: SAMPLES }, (_, i) => i % 5);
  const data = await bench.write('data.npz', npzOf('x', [3, 8, 8], normals(SAMPLES * 192, 3), labels));
  inputs = [await bench.model('model.onnx', tinyResNet()), '--data', data, '--json', '--quiet'];
});
afterAll(() => bench.remove());

interface Found<Layer> {
  readonly layers: readonly Layer[];
  readonly sensitivityCheck: SensitivityCheck;
  readonly warnings?: readonly string[];
  readonly settings: Readonly<Record<string, unknown>>;
}

async function quantized(...flags: string[]): Promise<Found<QuantizedLayer> & { stages: Set<string> }> {
  const stages = new Set<string>();
  const library = listeningTo(({ stage }) => stages.add(stage));
  const args = ['quantize', ...inputs, '-o', bench.at('out.onnx'), '--force', '--execution', 'float'];
  const { code, stdout } = await bench.run([...args, '--latency-runs', '1', ...flags], { library });
  expect(code).toBe(0);
  return { ...(JSON.parse(stdout) as Found<QuantizedLayer>), stages };
}

describe('quantize', () => {
  it('computes no gradients where the measurement decides', async () => {
    const { stages, layers, sensitivityCheck } = await quantized();
    expect(stages).toContain('measure divergence');
    expect(stages).not.toContain('measure gradients');
    expect(layers.every((layer) => layer.gradient === undefined)).toBe(true);
    expect(sensitivityCheck.withoutGradient).toBeUndefined();
  });

  it('computes and reports them for --sensitivity flow', async () => {
    const { stages, layers, sensitivityCheck, settings } = await quantized('--sensitivity', 'flow');
    expect(stages).toContain('measure gradients');
    expect(layers.map((layer) => (layer.gradient ?? 0) > 0)).toEqual([true, true, true, true]);
    expect(sensitivityCheck).toMatchObject({ layers: 4, withoutGradient: expect.any(Number) as number });
    expect(settings).toMatchObject({ sensitivity: 'flow', sensitivityMode: 'corrected', gradientTerm: 'g' });
    const gxw = await quantized('--sensitivity', 'flow', '--gradient-term', 'gxw');
    const sensitivities = (all: readonly QuantizedLayer[]): unknown[] => all.map((layer) => layer.sensitivity);
    expect(sensitivities(gxw.layers)).not.toEqual(sensitivities(layers));
    expect(gxw.layers.map((layer) => layer.gradient)).toEqual(layers.map((layer) => layer.gradient));
  });

  it('lets the published sensitivity decide, with its floors and within the budget', async () => {
    const { stages, layers, warnings = [] } = await quantized('--sensitivity-mode', 'reference', '--bits', '5');
    expect(stages).toContain('measure gradients');
    expect(warnings.join()).not.toContain('widths follow the measurement');
    // A floor of 6 bits by flow, 4 by gradients, none for first and last layers.
    expect(Object.fromEntries(layers.map((layer) => [layer.name, layer.bits]))).toMatchObject({
      'block.b': 6,
      stem: 5,
    });
    const args = ['quantize', ...inputs, '-o', bench.at('no.onnx'), '--sensitivity-mode', 'reference', '--bits', '3'];
    const { code, stderr } = await bench.run(args);
    expect(code).toBe(3);
    expect(stderr).toMatch(/block\.b >= 6 bits \(flow\)/);
    expect(stderr).toMatch(/stem >= 4 bits \(gradient\); head >= 4 bits \(gradient\)/);
  });

  it('refuses what does not go together, by name', async () => {
    const refused = async (...flags: string[]): Promise<string> => {
      const { code, stderr } = await bench.run(['quantize', ...inputs, '-o', bench.at('no.onnx'), ...flags]);
      expect(code).toBe(2);
      return stderr;
    };
    const reference = ['--sensitivity-mode', 'reference'];
    expect(await refused(...reference, '--gradient-term', 'gxw')).toMatch(/--gradient-term: must be g/);
    expect(await refused(...reference, '--sensitivity', 'measured')).toMatch(/--sensitivity-mode: .*measured/);
    expect(await refused('--gradient-bits', '9')).toMatch(/--gradient-bits/);
  });
});

describe('profile', () => {
  it('has the gradient of every layer, and the agreement with and without them', async () => {
    const { code, stdout } = await bench.run(['profile', ...inputs]);
    expect(code).toBe(0);
    const { layers, sensitivityCheck } = JSON.parse(stdout) as Found<ProfiledLayer>;
    expect(layers.map((layer) => (layer.gradient ?? 0) > 0)).toEqual([true, true, true, true]);
    expect(sensitivityCheck).toMatchObject({ layers: 4, withoutGradient: expect.any(Number) as number });
  });
});
