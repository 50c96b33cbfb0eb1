import { describe, expect, it } from 'vitest';
import { parseSchedule } from '../data/noised.js';
import type { Feeds, HostTensor, Session, ValueSignature } from '../runtime/engine.js';
import { Builder } from '../testing/flow-models.js';
import { engine } from '../testing/graph-writing.js';
import { toBytes } from '../onnx/to-bytes.js';
import { decoderOf, drawByDiffusion, drawFromNoise } from './samples.js';

const schedule = parseSchedule('linear:0.0001:0.02:100');
const x: ValueSignature = { name: 'x', type: 'float32', dims: ['N', 3] };
const t: ValueSignature = { name: 't', type: 'float32', dims: ['N'] };

/** Knows the noise in samples that are all `clean`. */
function knowing(clean: readonly number[], visited: number[], fed: number[][] = []): Session {
  return {
    inputs: [x, t],
    outputs: [{ ...x, name: 'eps' }],
    run: (feeds: Feeds) => {
      const given = feeds.x!.data as Float32Array;
      const step = Math.round(Number(feeds.t!.data[0]) * 100);
      visited.push(step);
      fed.push([...given]);
      const kept = schedule.kept[step]!;
      const data = given.map((v, i) => (v - Math.sqrt(kept) * clean[i % 3]!) / Math.sqrt(1 - kept));
      return Promise.resolve({ eps: { type: 'float32' as const, dims: feeds.x!.dims, data } });
    },
    release: () => Promise.resolve(),
  };
}

async function drawn(draw: (take: (samples: HostTensor) => Promise<void>) => Promise<void>): Promise<number[]> {
  const all: number[] = [];
  await draw((samples) => {
    all.push(...(samples.data as Float32Array));
    return Promise.resolve();
  });
  return all;
}

const inputs = { sample: x, time: t, noise: 'eps' };
const how = { dims: [3], steps: 5, range: [-1, 1] as const };

describe('drawByDiffusion', () => {
  it('comes to the clean sample where the noise is known, by as many steps as asked for from the last to the first', async () => {
    const visited: number[] = [];
    const found = await drawn((take) =>
      drawByDiffusion(knowing([0.5, -0.25, 1], visited), inputs, schedule, how, {
        count: 2,
        seed: 1,
        stage: 's',
        take,
      }),
    );
    expect(visited).toEqual([99, 74, 50, 25, 0]);
    for (const [i, v] of found.entries()) expect(v).toBeCloseTo([0.5, -0.25, 1][i % 3]!, 4);
  });

  it('stays within the range, with the noise that this leaves', async () => {
    const fed: number[][] = [];
    const found = await drawn((take) =>
      drawByDiffusion(knowing([5, -5, 0], [], fed), inputs, schedule, how, { count: 1, seed: 1, stage: 's', take }),
    );
    for (const [i, v] of found.entries()) expect(v).toBeCloseTo([1, -1, 0][i]!, 4);
    const [before, after] = [schedule.kept[99]!, schedule.kept[74]!];
    fed[1]!.forEach((v, i) => {
      const held = [1, -1, 0][i]!;
      const noise = (fed[0]![i]! - Math.sqrt(before) * held) / Math.sqrt(1 - before);
      expect(v).toBeCloseTo(Math.sqrt(after) * held + Math.sqrt(1 - after) * noise, 4);
    });
  });
});

describe('drawFromNoise', () => {
  it('is the same whatever is drawn beside it, and another one by another seed', async () => {
    const b = new Builder(17, 3);
    const session = await engine.createSession(toBytes(b.done(b.op('Identity', [b.input('z', [4])]))));
    const values = (count: number, seed: number): Promise<number[]> =>
      drawn((take) => drawFromNoise(session, [4], { count, seed, stage: 's', take }));
    const many = await values(100, 1);
    expect(many).toHaveLength(400);
    expect((await values(3, 1)).slice(0, 12)).toEqual(many.slice(0, 12));
    expect(many.slice(256, 260)).not.toEqual(many.slice(0, 4));
    expect(await values(3, 2)).not.toEqual(many.slice(0, 12));
    const mean = many.reduce((a, v) => a + v, 0) / 400;
    expect(Math.abs(mean)).toBeLessThan(0.2);
    expect(many.reduce((a, v) => a + (v - mean) ** 2, 0) / 400).toBeCloseTo(1, 0);
    await session.release();
  });
});

describe('decoderOf', () => {
  const autoencoder = (leaking: boolean) => {
    const b = new Builder(17, 3);
    const image = b.input('image', [6]);
    const mean = b.dense(image, 6, 2);
    const decoded = b.dense(mean, 2, 6);
    const made = leaking ? b.op('Add', [decoded, image]) : decoded;
    return { model: b.done(made, mean), names: [made.name, mean.name] as const };
  };

  it('makes the reconstruction from the mean alone', async () => {
    const { model, names } = autoencoder(false);
    const whole = await engine.createSession(toBytes(model));
    const part = await engine.createSession(toBytes(decoderOf(model, names, 2)!));
    const results = await whole.run({ image: { type: 'float32', dims: [2, 6], data: new Float32Array(12).fill(0.3) } });
    const decoded = await part.run({ [names[1]]: results[names[1]]! });
    expect(decoded[names[0]]!.data).toEqual(results[names[0]]!.data);
  });

  it('is not there where the image gets past the mean', () => {
    const { model, names } = autoencoder(true);
    expect(decoderOf(model, names, 2)).toBeUndefined();
  });
});
