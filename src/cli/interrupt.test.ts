/** Interrupts and readers that go away: exit codes, and no file changed or left behind. */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { listeningTo, workbench, type Workbench } from '../testing/command-line.js';
import { normals, tinyResNet } from '../testing/tiny-models.js';
import { npzOf } from '../testing/tiny-net.js';

const MAIN = fileURLToPath(new URL('./main.ts', import.meta.url));

let bench: Workbench;
let args: string[];

beforeAll(async () => {
  bench = await workbench();
  const model = await bench.model('model.onnx', tinyResNet());
  const samples = 2000;
  const labels = Array.from({ length: samples }, (_, i) => i % 5);
  const data = await bench.write('data.npz', npzOf('x', [3, 8, 8], normals(samples * 192, 3), labels));
  const output = await bench.write('out.onnx', 'an earlier result');
  args = [
    'quantize',
    model,
    '-o',
    output,
    '--force',
    '--data',
    data,
    '--execution',
    'float',
    '--latency-runs',
    '2',
    '--calib-samples',
    '200',
  ];
});
afterAll(() => bench.remove());

/** Quantizes, and interrupts when `stage` begins: at once, or as a signal would, by an event of its own. */
function interruptedAt(
  stage: string,
  interrupt: (abort: () => void) => void = (abort) => {
    abort();
  },
): ReturnType<Workbench['run']> {
  const abort = new AbortController();
  return bench.run(args, {
    signal: abort.signal,
    library: listeningTo((event) => {
      if (event.stage !== stage) return;
      interrupt(() => {
        abort.abort();
      });
    }),
  });
}

describe('an interrupt', () => {
  it('in any stage exits with 130 and leaves every file as it was', async () => {
    const stages = new Set<string>();
    const fresh = args.map((arg) => (arg === bench.at('out.onnx') ? bench.at('complete.onnx') : arg));
    const complete = await bench.run(fresh, {
      library: listeningTo(({ stage }) => stages.add(stage)),
    });
    expect(complete).toMatchObject({ code: 0, changed: ['complete.onnx'] });
    expect(stages.size).toBeGreaterThan(5);
    for (const stage of stages) {
      const { code, stderr, stdout, changed } = await interruptedAt(stage);
      expect({ stage, code, stdout, changed }).toEqual({ stage, code: 130, stdout: '', changed: [] });
      expect(stderr).toMatch(/^error: Interrupted before the work was complete\.\n$/);
    }
  });

  it('is noticed between layers while their weights are rounded', async () => {
    let events = 0;
    const { code } = await interruptedAt('round weights', (abort) => {
      if (events++ === 0) setTimeout(abort);
    });
    expect({ code, events }).toEqual({ code: 130, events: 1 });
  });

  it('by SIGINT stops the process, which cleans up', async () => {
    // Once the program listens, the process signals itself, as a terminal would.
    const preload = `const timer = setInterval(() => {
      if (process.listenerCount('SIGINT') === 0) return;
      clearInterval(timer);
      setTimeout(() => process.kill(process.pid, 'SIGINT'), 400);
    }, 5);`;
    const before = await bench.contents();
    const long = [...args, '--calib-samples', '1600', '--sensitivity', 'measured', '--probe-samples', '1600'];
    const { code, stderr } = await run(long, preload);
    expect(stderr).toContain('stopping; once more to quit at once');
    expect(stderr).not.toMatch(/\n {4}at /);
    expect(code).toBe(130);
    expect(await bench.contents()).toEqual(before);
  });

  it('by a reader that goes away is none', async () => {
    const { code, stderr } = await run(['inspect', bench.at('model.onnx'), '--json', '--quiet'], '', true);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  });
});

/** Runs the real executable. */
function run(
  commandLine: readonly string[],
  preload: string,
  closeStdout = false,
): Promise<{ code: number | null; stderr: string }> {
  const script = `data:text/javascript,${encodeURIComponent(preload)}`;
  const child = spawn(process.execPath, ['--import', 'tsx', '--import', script, MAIN, ...commandLine], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  if (closeStdout) child.stdout.destroy();
  else child.stdout.resume();
  let stderr = '';
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => {
      resolve({ code, stderr });
    });
  });
}
