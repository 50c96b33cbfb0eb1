/** Commands as processes of their own: what came out, the refusal, or how they failed. */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { formatBytes, formatMetric } from '../../src/report/format.js';
import { parseReport, type Measurement, type Report } from '../../src/report/report.js';

/** The built command line. */
export const CLI = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

const refusalSchema = z.object({
  error: z.object({
    code: z.string(),
    message: z.string(),
    node: z.string().optional(),
    hint: z.string().optional(),
    exitCode: z.number(),
  }),
});

export type Outcome =
  | { readonly kind: 'done'; readonly report: Report }
  /** With exit code 2 or 3, and a hint. */
  | { readonly kind: 'refused'; readonly message: string }
  /** A crash, a hang, another exit code, or an answer that is not JSON. */
  | { readonly kind: 'failed'; readonly message: string };

export interface Ran {
  readonly outcome: Outcome;
  readonly seconds: number;
}

/**
 * @param cli file of the command line
 * @param minutes after which the process is killed, which counts as failed
 */
export async function runCommand(cli: string, args: readonly string[], minutes: number): Promise<Ran> {
  const start = performance.now();
  const child = spawn(process.execPath, [cli, ...args, '--json', '--quiet'], {
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: minutes * 60_000,
    killSignal: 'SIGKILL',
  });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  const [code, signal] = await new Promise<[number | null, NodeJS.Signals | null]>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (...end) => resolve(end));
  });
  const seconds = (performance.now() - start) / 1000;
  return { outcome: outcomeOf(code, signal, stdout, stderr), seconds };
}

function outcomeOf(code: number | null, signal: string | null, stdout: string, stderr: string): Outcome {
  const failed = (why: string): Outcome => ({ kind: 'failed', message: `${why} ${stderr.trim()}`.trim() });
  if (signal !== null) return failed(`Killed by ${signal}.`);
  let value: unknown;
  try {
    value = JSON.parse(stdout);
  } catch {
    return failed(`Exit code ${code}, and stdout is not JSON.`);
  }
  if (code === 0) return { kind: 'done', report: parseReport(value) };
  const refusal = refusalSchema.safeParse(value);
  if (!refusal.success) return failed(`Exit code ${code} without an error object.`);
  const { message, node, hint } = refusal.data.error;
  const text = `${message}${node === undefined ? '' : ` [${node}]`}${hint === undefined ? '' : ` Hint: ${hint}`}`;
  const clear = (code === 2 || code === 3) && hint !== undefined;
  return { kind: clear ? 'refused' : 'failed', message: clear ? text : `Exit code ${code}: ${text}` };
}

/** Bytes, metrics and times of a file beside those of the one it was made from. */
export function measuredText(before: Measurement, after: Measurement): string {
  const figures = (of: Measurement): string =>
    [...(of.metric ? [of.metric] : []), ...(of.metrics ?? [])].map((m) => `${m.name} ${formatMetric(m)}`).join(', ');
  const times = (after.latencies ?? (after.latency ? [after.latency] : [])).flatMap((own) => {
    const base = (before.latencies ?? (before.latency ? [before.latency] : [])).find((l) => l.batch === own.batch);
    return base ? [`${(own.medianMs / base.medianMs).toFixed(2)}x@${own.batch}`] : [];
  });
  return [
    `${formatBytes(before.bytes)} -> ${formatBytes(after.bytes)}`,
    ...(before.metric ? [figures(before)] : []),
    `-> ${figures(after)}`,
    `time ${times.join(' ')}`,
  ].join(' ');
}
