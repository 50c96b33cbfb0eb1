/** The state of a training as a file: an .npz archive (numpy opens it) that appears whole or not at all. */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { unzipSync } from 'fflate';
import { z } from 'zod';
import { npyHeaderLength } from '../data/npy.js';
import { writeNpz } from '../data/npz-write.js';
import { FlowCompressError, messageOf } from '../errors.js';
import type { HostTensor } from '../runtime/engine.js';
import type { TrainingVectors } from '../training/stepper.js';
import type { TrainingProgress } from '../training/trainer.js';
import { writeFileAtomically } from './atomic-file.js';
import { errorCode } from './error-code.js';

export interface Checkpoint {
  readonly progress: TrainingProgress;
  readonly vectors: TrainingVectors;
  readonly best?: TrainingVectors;
}

const finite = z.number().nullable();
const metaSchema = z.object({
  version: z.literal(2),
  /** Names and sizes of the trained tensors. */
  layout: z.string(),
  progress: z.object({
    epoch: z.number().int(),
    stepInEpoch: z.number().int(),
    unevaluated: z.number().int(),
    lossSum: z.number(),
    steps: z.number().int(),
    seconds: z.number(),
    plateau: z.object({ best: finite, waited: z.number().int(), factor: z.number() }),
    learningRate: z.number(),
    best: z.object({ score: z.number(), epoch: z.number().int(), step: z.number().int() }).optional(),
    notes: z.record(z.string(), z.array(z.number())).optional(),
  }),
});

const PARTS = ['vectors', 'best'] as const;
/** In front of the names of notes that are arrays of their own. */
const NOTE = 'note.';

/** @param layout describes the trained tensors; a checkpoint is read back only for an equal one */
export async function writeCheckpoint(path: string, layout: string, checkpoint: Checkpoint): Promise<void> {
  const { progress } = checkpoint;
  const plateau = { ...progress.plateau, best: Number.isFinite(progress.plateau.best) ? progress.plateau.best : null };
  const kept = Object.entries(progress.notes ?? {});
  const notes = progress.notes && Object.fromEntries(kept.filter(([, note]) => !(note instanceof Float32Array)));
  const meta = new TextEncoder().encode(
    JSON.stringify({ version: 2, layout, progress: { ...progress, plateau, ...(notes && { notes }) } }),
  );
  const arrays: Record<string, HostTensor> = { meta: { type: 'uint8', dims: [meta.length], data: meta } };
  for (const [name, note] of kept)
    if (note instanceof Float32Array) arrays[NOTE + name] = { type: 'float32', dims: [note.length], data: note };
  for (const part of PARTS) {
    const vectors = checkpoint[part];
    if (!vectors) continue;
    const add = (name: string, data: Float32Array | undefined): void => {
      if (data) arrays[`${part}.${name}`] = { type: 'float32', dims: [data.length], data };
    };
    add('parameters', vectors.parameters);
    add('buffers', vectors.buffers);
    add('average', vectors.average);
    vectors.states.forEach((state, i) => {
      add(`state${String(i)}`, state);
    });
  }
  const digest = digestOf(Object.entries(arrays).map(([name, { data }]) => [name, data]));
  arrays.digest = { type: 'uint8', dims: [digest.length], data: digest };
  await writeFileAtomically(path, writeNpz(arrays), { force: true });
}

/**
 * @returns undefined when there is no such file
 * @throws FlowCompressError `bad-input` for a damaged checkpoint or one of another model
 */
export async function readCheckpoint(path: string, layout: string): Promise<Checkpoint | undefined> {
  let bytes: Uint8Array;
  try {
    bytes = await readFile(path);
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return undefined;
    throw new FlowCompressError('io', `${path} cannot be read: ${messageOf(error)}`, {
      node: path,
      hint: 'Check the permissions of the run directory.',
      cause: error,
    });
  }
  const { meta, arrays } = parse(path, bytes);
  if (meta.layout !== layout)
    throw new FlowCompressError('bad-input', `${path} is the checkpoint of another model.`, {
      node: path,
      hint: 'Repeat the command with the model it was made with, or give another --run-dir.',
    });
  const vectorsOf = (part: (typeof PARTS)[number]): TrainingVectors | undefined => {
    const parameters = arrays.get(`${part}.parameters`);
    if (!parameters) return undefined;
    const states: Float32Array[] = [];
    for (let state; (state = arrays.get(`${part}.state${String(states.length)}`));) states.push(state);
    const average = arrays.get(`${part}.average`);
    const buffers = arrays.get(`${part}.buffers`) ?? new Float32Array();
    return { parameters, buffers, states, ...(average && { average }) };
  };
  const vectors = vectorsOf('vectors');
  if (!vectors) throw damaged(path);
  const { plateau, notes, ...progress } = meta.progress;
  const long = [...arrays]
    .filter(([name]) => name.startsWith(NOTE))
    .map(([name, note]) => [name.slice(NOTE.length), note]);
  return {
    progress: {
      ...{ ...progress, best: progress.best, plateau: { ...plateau, best: plateau.best ?? -Infinity } },
      ...(notes && { notes: { ...notes, ...(Object.fromEntries(long) as Record<string, Float32Array>) } }),
    },
    vectors,
    best: vectorsOf('best'),
  };
}

function parse(
  path: string,
  bytes: Uint8Array,
): { meta: z.infer<typeof metaSchema>; arrays: Map<string, Float32Array> } {
  try {
    const arrays = new Map<string, Float32Array>();
    const members: [string, Uint8Array][] = [];
    let meta: unknown;
    let digest: Uint8Array | undefined;
    for (const [file, content] of Object.entries(unzipSync(bytes))) {
      const name = file.replace(/\.npy$/, '');
      const dataOffset = npyHeaderLength(content, file);
      const data = content.slice(dataOffset);
      if (name === 'digest') {
        digest = data;
        continue;
      }
      members.push([name, data]);
      if (name === 'meta') meta = JSON.parse(new TextDecoder().decode(data));
      else arrays.set(name, new Float32Array(data.buffer, 0, data.byteLength / 4));
    }
    if (!digest || !digestOf(members).equals(digest)) throw new Error('The digest does not fit.');
    return { meta: metaSchema.parse(meta), arrays };
  } catch (error) {
    throw damaged(path, error);
  }
}

/** SHA-256 of the arrays and their names; reading a ZIP archive checks nothing. */
function digestOf(members: readonly (readonly [string, HostTensor['data']])[]): Buffer {
  const hash = createHash('sha256');
  for (const [name, { buffer, byteOffset, byteLength }] of members)
    hash.update(`${name} ${String(byteLength)}\n`).update(new Uint8Array(buffer, byteOffset, byteLength));
  return hash.digest();
}

function damaged(path: string, cause?: unknown): FlowCompressError {
  return new FlowCompressError('bad-input', `${path} is damaged or of another version of Flow Compress.`, {
    node: path,
    hint: 'Give another --run-dir to start again.',
    cause,
  });
}
