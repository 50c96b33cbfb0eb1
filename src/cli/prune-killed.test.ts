/** A run of `prune` that is killed without a chance to clean up: no half of a file, and the same bytes once it is taken up again. */
import { spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { openModel } from '../node/model-file.js';
import { workbench, type Workbench } from '../testing/command-line.js';
import { normals, tinyResNet } from '../testing/tiny-models.js';
import { npzOf } from '../testing/tiny-net.js';

const MAIN = fileURLToPath(new URL('./main.ts', import.meta.url));

let bench: Workbench;

beforeAll(async () => {
  bench = await workbench();
  await bench.model('model.onnx', tinyResNet(17, 16));
  await bench.write('data.npz', npzOf('x', [3, 8, 8], normals(400 * 192, 3)));
});
afterAll(() => bench.remove());

/** Runs the real executable. @param kill milliseconds of work after which it is gone; it runs to its end without */
function prune(name: string, kill?: number): Promise<{ code: number | null; signal: string | null; stderr: string }> {
  // Once the program listens for interrupts, it works; starting takes longer than that.
  const preload = `const timer = setInterval(() => {
    if (process.listenerCount('SIGINT') === 0) return;
    clearInterval(timer);
    setTimeout(() => process.kill(process.pid, 'SIGKILL'), ${String(kill)});
  }, 5);`;
  const child = spawn(
    process.execPath,
    [
      ...[
        '--import',
        'tsx',
        ...(kill === undefined ? [] : ['--import', `data:text/javascript,${encodeURIComponent(preload)}`]),
      ],
      ...[
        MAIN,
        'prune',
        bench.at('model.onnx'),
        '-o',
        bench.at(`${name}.onnx`),
        '--data',
        bench.at('data.npz'),
        '--quiet',
      ],
      ...['--reduce', '0.6', '--cuts', '2', '--align', '4', '--steps', '24', '--batch-size', '32', '--lr', '1e-3'],
      ...['--calib-samples', '64', '--probe-samples', '16', '--latency-runs', '2', '--force'],
      ...['--run-dir', bench.at(`${name}-run`), '--resume'],
    ],
    { stdio: ['ignore', 'ignore', 'pipe'] },
  );
  let stderr = '';
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => {
      resolve({ code, signal, stderr });
    });
  });
}

it('killed at any moment, gives the same bytes when it goes on', async () => {
  expect(await prune('whole')).toMatchObject({ code: 0, stderr: '' });
  const wanted = await readFile(bench.at('whole.onnx'));
  let killed = 0;
  // Each goes on from where the one before was killed; late ones may come to the end.
  for (const moment of [200, 700]) {
    const { code, signal, stderr } = await prune('killed', moment);
    expect({ moment, code, signal, stderr }).toEqual(
      signal === null
        ? { moment, code: 0, signal: null, stderr: '' }
        : { moment, code: null, signal: 'SIGKILL', stderr: '' },
    );
    if (signal === null) break;
    killed++;
    const written = await readFile(bench.at('killed.onnx')).catch(() => undefined);
    if (written) expect(written).toEqual(wanted);
  }
  expect(killed).toBeGreaterThan(0);
  expect(await prune('killed')).toMatchObject({ code: 0, stderr: '' });
  expect(await readFile(bench.at('killed.onnx'))).toEqual(wanted);
  await openModel(bench.at('killed.onnx'));
}, 300_000);
