/** Operator times from ONNX Runtime's profile of a session, on onnxruntime-node. */
import { readdir, readFile } from 'node:fs/promises';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { FlowCompressError, messageOf } from '../errors.js';
import type { Feeds } from '../runtime/engine.js';
import type { OperatorEvent, Profiler } from '../runtime/op-times.js';
import { toOrt } from './onnxruntime.js';
import * as ort from './ort.js';
import { withTemporaryFolder } from './temporary-folder.js';

const SUFFIX = '_kernel_time';

const kernelEvent = z.object({
  cat: z.literal('Node'),
  name: z.string().endsWith(SUFFIX),
  dur: z.number(),
  args: z.object({
    op_name: z.string(),
    output_type_shape: z.array(z.record(z.string(), z.array(z.number()))).default([]),
  }),
});

/** @param threads intra-op threads; the engine's default when absent */
export function nodeProfiler(threads?: number): Profiler {
  return {
    machine: machineKey(threads),
    profile: (model, batches, runs) =>
      withTemporaryFolder(async (folder) => {
        const done = await runProfiled(model, batches, runs, join(folder, 'profile'), threads);
        const [file] = await readdir(folder);
        if (file === undefined) throw new FlowCompressError('internal', 'ONNX Runtime wrote no profile.');
        const events = kernelEvents(await readFile(join(folder, file), 'utf8'));
        const perRun = Math.floor(events.length / done.reduce((sum, runs) => sum + runs + 1, 0));
        let next = 0;
        return done.map((runs) => {
          // The first run of a batch allocates and is not representative.
          const first = next + 1;
          next += runs + 1;
          return Array.from({ length: runs }, (_, i) => events.slice((first + i) * perRun, (first + i + 1) * perRun));
        });
      }),
  };
}

export function machineKey(threads: number | undefined): string {
  const model = cpus()[0]?.model.trim() ?? 'unknown processor';
  const version = ort.env.versions.node ?? 'unknown';
  return `${model} x${String(cpus().length)}, onnxruntime ${version}, ${threads === undefined ? 'default' : String(threads)} threads`;
}

/** After this time three runs are enough. */
const PATIENCE_MS = 500;
const ENOUGH_RUNS = 3;

/** Runs each batch once to warm up and up to `runs` times more. @returns how many times more, by batch */
async function runProfiled(
  model: Uint8Array,
  batches: readonly Feeds[],
  runs: number,
  prefix: string,
  threads?: number,
): Promise<number[]> {
  const inputs = batches.map((feeds) =>
    Object.fromEntries(Object.entries(feeds).map(([name, tensor]) => [name, toOrt(tensor)])),
  );
  try {
    const session = await ort.InferenceSession.create(model, {
      executionProviders: ['cpu'],
      graphOptimizationLevel: 'all',
      interOpNumThreads: 1,
      logSeverityLevel: 4,
      enableProfiling: true,
      profileFilePrefix: prefix,
      ...(threads === undefined ? {} : { intraOpNumThreads: threads }),
    });
    try {
      const counts: number[] = [];
      for (const feeds of inputs) {
        const start = performance.now();
        let done = -1;
        while (done < runs && (done < ENOUGH_RUNS || performance.now() - start < PATIENCE_MS)) {
          await session.run(feeds);
          done++;
        }
        counts.push(done);
      }
      session.endProfiling();
      return counts;
    } finally {
      await session.release();
    }
  } catch (error) {
    throw new FlowCompressError('bad-input', `ONNX Runtime could not profile the model: ${messageOf(error)}`, {
      hint: 'Check that the data has the shapes and types of the model inputs.',
      cause: error,
    });
  }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new FlowCompressError('io', `The profile that ONNX Runtime wrote cannot be read: ${messageOf(error)}`, {
      node: tmpdir(),
      hint: 'Check that the disk with the temporary folder is not full, or set TMPDIR to another one.',
      cause: error,
    });
  }
}

function kernelEvents(text: string): OperatorEvent[] {
  const entries = parsed(text);
  if (!Array.isArray(entries)) return [];
  const events: OperatorEvent[] = [];
  for (const entry of entries) {
    const event = kernelEvent.safeParse(entry).data;
    if (!event) continue;
    const dims = Object.values(event.args.output_type_shape[0] ?? {})[0] ?? [];
    events.push({
      name: event.name.slice(0, -SUFFIX.length),
      op: event.args.op_name,
      micros: event.dur,
      elements: dims.reduce((a, b) => a * b, 1),
    });
  }
  return events;
}
