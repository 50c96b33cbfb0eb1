/**
 * Two hundred short trials on two workers, one of which is killed every 20 seconds with the trial that it runs: whether each
 * trial comes to exactly one result, and what the queue costs. Build first: `npm run build && node --import tsx bench/queue.ts`.
 *
 *   node --import tsx bench/queue.ts [--trials 200] [--kill 20] [--queue redis://localhost:6379]
 */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { openSweepFolder } from '../src/experiments/sweep-folder.js';
import { toBytes } from '../src/onnx/to-bytes.js';
import { normals, tinyResNet } from '../src/testing/tiny-models.js';
import { npzOf } from '../src/testing/tiny-net.js';

const MAIN = fileURLToPath(new URL('../dist/cli/main.js', import.meta.url));
const WORKERS = 2;
const SAMPLES = 200;

const { values } = parseArgs({
  options: {
    trials: { type: 'string', default: '200' },
    kill: { type: 'string', default: '20' },
    lease: { type: 'string', default: '5s' },
    queue: { type: 'string' },
  },
});
if (!existsSync(MAIN)) throw new Error('Run `npm run build` first.');
const trials = Number(values.trials);
const folder = await mkdtemp(join(tmpdir(), 'flow-queue-bench-'));
const runDir = join(folder, 'run');

/** When a worker began its trials, in milliseconds, by name of the trial. */
interface Log {
  readonly child: ChildProcess;
  readonly begun: { readonly name: string; readonly at: number }[];
  counted: number;
}

function startWorker(): Log {
  const queue = values.queue === undefined ? [] : ['--queue', values.queue];
  const child = spawn(process.execPath, [MAIN, 'worker', runDir, ...queue], { stdio: ['ignore', 'ignore', 'pipe'] });
  const log: Log = { child, begun: [], counted: 0 };
  let rest = '';
  child.stderr.on('data', (chunk: Buffer) => {
    const at = performance.now();
    const lines = (rest + chunk.toString()).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) {
      const [, name, what] = /^([\w.-]+): (begun|done)/.exec(line) ?? [];
      if (name !== undefined && what === 'begun') log.begun.push({ name, at });
      else if (what === 'done') log.counted++;
      else console.log(`  ${line}`);
    }
  });
  return log;
}

/** First the worker, then what it had started, as when a machine is switched off. */
function kill({ child }: Log): void {
  const { stdout } = spawnSync('ps', ['-o', 'pid=', '--ppid', String(child.pid)], { encoding: 'utf8' });
  child.kill('SIGKILL');
  for (const pid of stdout
    .split('\n')
    .map(Number)
    .filter((one) => one > 0)) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // It has ended by itself.
    }
  }
}

try {
  const labels = Array.from({ length: SAMPLES }, (_, i) => i % 5);
  await writeFile(join(folder, 'model.onnx'), toBytes(tinyResNet()));
  await writeFile(join(folder, 'data.npz'), npzOf('x', [3, 8, 8], normals(SAMPLES * 192, 3), labels));
  await writeFile(
    join(folder, 'sweep.yaml'),
    [
      'command: evaluate',
      'defaults: { model: model.onnx, data: data.npz, batch-sizes: 1, latency-runs: 2, threads: 1 }',
      `sweep: { seed: [${Array.from({ length: trials }, (_, i) => i).join(', ')}] }`,
    ].join('\n'),
  );
  const plan = ['sweep', join(folder, 'sweep.yaml'), '--run-dir', runDir, '--workers', '0', '--lease', values.lease];
  const planned = spawnSync(process.execPath, [MAIN, ...plan, '--json', '--quiet'], { encoding: 'utf8' });
  if (planned.status !== 0) throw new Error(planned.stderr);
  const { version } = JSON.parse(planned.stdout) as { version: string };
  const sweep = await openSweepFolder(runDir, version);

  const began = performance.now();
  const logs = Array.from({ length: WORKERS }, startWorker);
  const crew = [...logs];
  let killed = 0;
  const timer = setInterval(
    () => {
      const at = killed++ % WORKERS;
      kill(crew[at]!);
      crew[at] = startWorker();
      logs.push(crew[at]);
    },
    1000 * Number(values.kill),
  );
  for (;;) {
    const { done, failed } = await sweep.settled();
    if (done.size + failed.size >= trials) break;
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
  clearInterval(timer);
  const seconds = (performance.now() - began) / 1000;
  await Promise.all(
    crew.map(
      ({ child }) => new Promise((resolve) => (child.exitCode === null ? child.once('exit', resolve) : resolve(0))),
    ),
  );

  const outcomes = await sweep.outcomes();
  const done = [...outcomes.values()].filter((one) => 'report' in one);
  const secondsOf = new Map((await sweep.plan()).trials.map(({ id, name }) => [name, outcomes.get(id)?.seconds ?? 0]));
  let inside = 0;
  let cycles = 0;
  let count = 0;
  for (const { begun } of logs)
    for (const [i, { name, at }] of begun.slice(0, -1).entries()) {
      inside += secondsOf.get(name) ?? 0;
      cycles += (begun[i + 1]!.at - at) / 1000;
      count++;
    }
  const runs = logs.reduce((sum, { begun }) => sum + begun.length, 0);
  const counted = logs.reduce((sum, log) => sum + log.counted, 0);
  console.log(
    [
      `${String(trials)} trials on ${String(WORKERS)} workers, queue: ${values.queue ?? 'the folder'}`,
      `results: ${String(done.length)}, errors: ${String(outcomes.size - done.length)}, told by workers: ${String(counted)}`,
      `runs begun: ${String(runs)}, workers killed: ${String(killed)}, ${seconds.toFixed(0)} s`,
      `mean trial ${(inside / count).toFixed(2)} s; between two trials ${((1000 * (cycles - inside)) / count).toFixed(1)} ms`,
      `overhead of the queue: ${((100 * (cycles - inside)) / cycles).toFixed(2)} % of the workers' time`,
    ].join('\n'),
  );
  if (done.length !== trials || outcomes.size !== trials || counted > trials) process.exitCode = 1;
} finally {
  await rm(folder, { recursive: true, force: true });
}
