/** Runs a peer quantizer (bench/peers/quantize.py) as its own process. */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';

export const PEER_METHODS = [
  'ort-static-minmax',
  'ort-static-entropy',
  'ort-dynamic',
  'ort-matmul-nbits',
  'nncf',
] as const;
export type PeerMethod = (typeof PEER_METHODS)[number];

/** What quantize.py prints: seconds of the work itself, imports and reading of data left out. */
const peerResultSchema = z.object({
  version: z.string(),
  bytes: z.number(),
  seconds: z.number(),
  secondsWithPreprocess: z.number().optional(),
  peakRssBytes: z.number(),
  rssBeforeBytes: z.number().optional(),
});
export type PeerResult = z.infer<typeof peerResultSchema>;

export interface PeerJob {
  readonly method: PeerMethod;
  readonly model: string;
  readonly output: string;
  /** .npz file or folder of images, for the methods that calibrate. */
  readonly data?: string;
  readonly samples?: number;
  readonly mean?: readonly number[];
  readonly std?: readonly number[];
  /** Centre crop of image files, pixels. */
  readonly size?: number;
  readonly preprocess?: 'full' | 'optimize' | 'none';
  readonly transformer?: boolean;
}

/** @throws Error with the peer's own last line when it fails */
export function runPeer(python: string, job: PeerJob): PeerResult {
  const option = (name: string, value: string | number | undefined): string[] =>
    value === undefined ? [] : [`--${name}`, String(value)];
  const result = spawnSync(
    python,
    [
      fileURLToPath(new URL('../peers/quantize.py', import.meta.url)),
      ...['--json', '--method', job.method, '--model', job.model, '--out', job.output],
      ...option('data', job.data),
      ...option('calib', job.samples),
      ...option('mean', job.mean?.join()),
      ...option('std', job.std?.join()),
      ...option('size', job.size),
      ...option('preprocess', job.preprocess),
      ...(job.transformer ? ['--transformer'] : []),
    ],
    { encoding: 'utf8', env: { ...process.env, PYTHONDONTWRITEBYTECODE: '1' } },
  );
  if (result.status !== 0) {
    const last = (result.stderr ?? '').trim().split('\n').at(-1) ?? '';
    throw new Error(`${job.method} on ${job.model}: ${result.error?.message ?? last}`);
  }
  return peerResultSchema.parse(JSON.parse(result.stdout));
}
