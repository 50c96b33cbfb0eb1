import { Readable } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { spoolToDisk } from './byte-source.js';

describe('spoolToDisk', () => {
  it('refuses a stream that broke before it was read, without ending the process', async () => {
    const broken = new Readable({ read: () => undefined });
    const uncaught: unknown[] = [];
    const listener = (error: unknown): void => {
      uncaught.push(error);
    };
    process.prependListener('uncaughtException', listener);
    try {
      broken.destroy(new Error('invalid distance too far back'));
      await expect(spoolToDisk('data.npz', broken)).rejects.toMatchObject({ name: 'FlowCompressError' });
      await new Promise((resolve) => setTimeout(resolve, 20));
    } finally {
      process.removeListener('uncaughtException', listener);
    }
    expect(uncaught).toEqual([]);
  });
});
