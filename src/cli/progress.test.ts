/** Progress without a terminal: a line now and then; none with --quiet. */
import { PassThrough } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { createProgress } from './progress.js';

/** A stream and everything written to it. */
function sink(isTTY = false): {
  stream: NodeJS.WritableStream & { isTTY: boolean; columns: number };
  text: () => string;
} {
  let text = '';
  const stream = Object.assign(new PassThrough(), { isTTY, columns: 100 });
  stream.on('data', (chunk: Buffer) => {
    text += chunk.toString();
  });
  return { stream, text: () => text };
}

describe('createProgress', () => {
  it('writes a line every five seconds with the time left', () => {
    let time = 0;
    const { stream, text } = sink();
    const progress = createProgress(stream, { quiet: false, now: () => time });
    for (let done = 0; done <= 100; done++) {
      progress.onProgress({ stage: 'measure widths', done, total: 100 });
      time += 200;
    }
    progress.stop();
    const lines = text().trimEnd().split('\n');
    expect(lines).toHaveLength(4);
    expect(lines[0]).toBe('measure widths: 25/100 (25%), about 15 s left');
    expect(lines[2]).toBe('measure widths: 75/100 (75%), about 5.0 s left');
    expect(lines[3]).toBe('measure widths: 100/100 (100%)');
  });

  it('counts the time left from where a resumed stage began', () => {
    let time = 0;
    const { stream, text } = sink();
    const progress = createProgress(stream, { quiet: false, now: () => time });
    progress.onProgress({ stage: 'a', done: 90, total: 100 });
    time = 10_000;
    progress.onProgress({ stage: 'a', done: 95, total: 100 });
    expect(text()).toBe('a: 95/100 (95%), about 10 s left\n');
  });

  it('does not divide by an unknown total', () => {
    let time = 0;
    const { stream, text } = sink();
    const progress = createProgress(stream, { quiet: false, now: () => time });
    time = 6000;
    progress.onProgress({ stage: 'read', done: 0, total: 0 });
    expect(text()).toBe('read: 0/0\n');
  });

  it('says nothing when quiet, terminal or not', () => {
    for (const isTTY of [true, false]) {
      const { stream, text } = sink(isTTY);
      const progress = createProgress(stream, { quiet: true });
      progress.onProgress({ stage: 'a', done: 1, total: 2 });
      progress.stop();
      expect(text()).toBe('');
    }
  });
});
