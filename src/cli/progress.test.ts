/** Progress: a bar on a terminal, without one a line now and then; none with --quiet. */
import { PassThrough } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { createProgress } from './progress.js';

/** A stream and everything written to it. */
function sink(
  isTTY = false,
  columns = 100,
): {
  stream: NodeJS.WritableStream & { isTTY: boolean; columns: number };
  text: () => string;
} {
  let text = '';
  const stream = Object.assign(new PassThrough(), { isTTY, columns });
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

  it('shows what is to be seen before the work goes on, but not with --quiet', () => {
    for (const isTTY of [false, true]) {
      const { stream, text } = sink(isTTY);
      const progress = createProgress(stream, { quiet: false, now: () => 0 });
      progress.onProgress({ stage: 'plan', done: 0, total: 2 });
      progress.onProgress({ stage: 'plan', done: 2, total: 2, note: 'cut  bits\n1    \u001b[31m3.2' });
      progress.stop();
      // Names of models cannot bring escape sequences along.
      expect(text()).toContain('\ncut  bits\n1     [31m3.2\n');
    }
    const quiet = sink();
    createProgress(quiet.stream, { quiet: true }).onProgress({ stage: 'plan', done: 0, total: 1, note: 'cut' });
    expect(quiet.text()).toBe('');
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

  it.each([
    [60, /train \[.{8}\] 50% .* epoch 12, loss 0\.4321/, /best|samples/],
    [80, /epoch 12, loss 0\.4321, best 0\.9123/, /samples/],
    [100, /epoch 12, loss 0\.4321, best 0\.9123, 1234 samples\/s/, /…/],
    [140, /train \[.{24}\] 50% .* samples\/s/, /…/],
  ])('fits %i columns of a terminal, leaving out whole parts of the detail', (columns, shown, hidden) => {
    const { stream, text } = sink(true, columns);
    const progress = createProgress(stream, { quiet: false });
    progress.onProgress({ stage: 'train', done: 0, total: 100 });
    progress.onProgress({
      ...{ stage: 'train', done: 50, total: 100 },
      detail: 'epoch 12, loss 0.4321, best 0.9123, 1234 samples/s',
    });
    progress.stop();
    const last = text()
      .split(/\u001b\[[\d?;]*[A-Za-z]/) // eslint-disable-line no-control-regex
      .findLast((line) => line.includes('50%'));
    expect(last).toMatch(shown);
    expect(last).not.toMatch(hidden);
    expect(last?.trimEnd().length).toBeLessThanOrEqual(columns);
  });

  it('cuts a long name in the middle', () => {
    const { stream, text } = sink(true, 60);
    const progress = createProgress(stream, { quiet: false });
    progress.onProgress({ stage: 'round', done: 0, total: 9, detail: `/first/${'x'.repeat(90)}/last/Conv` });
    progress.stop();
    expect(text()).toMatch(/left {2}\/first.*…x*\/last\/Conv/);
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
