import { describe, expect, it } from 'vitest';
import { engine } from '../testing/graph-writing.js';
import type { Engine } from './engine.js';
import { saturates } from './saturation.js';

/** An engine whose every output has this value. */
const answering = (value: number): Engine => ({
  provider: 'cpu',
  version: 'fake',
  createSession: () =>
    Promise.resolve({
      inputs: [],
      outputs: [],
      run: () => Promise.resolve({ y: { type: 'float32', dims: [1, 16], data: new Float32Array(16).fill(value) } }),
      release: () => Promise.resolve(),
    }),
});

describe('saturates', () => {
  it('tells exact sums from saturated pairs', async () => {
    expect(await saturates(answering(64 * 255 * 127))).toBe(false);
    expect(await saturates(answering(32 * 32767))).toBe(true);
  });

  it('runs on the engine at hand, which gives the same answer twice', async () => {
    expect(await saturates(engine)).toBe(await saturates(engine));
  });
});
