/** Exit codes and error texts. */
import { CommanderError } from 'commander';
import { describe, expect, it } from 'vitest';
import { FlowCompressError } from '../errors.js';
import { errorText, exitCodeOf } from './exit.js';

describe('exitCodeOf', () => {
  it.each([
    ['bad-input', 2],
    ['unsupported', 2],
    ['io', 2],
    ['infeasible', 3],
    ['aborted', 130],
    ['internal', 1],
  ] as const)('%s exits with %i', (code, exit) => {
    expect(exitCodeOf(new FlowCompressError(code, 'x'), false)).toBe(exit);
  });

  it('knows usage errors, help, surprises and interrupts', () => {
    expect(exitCodeOf(new CommanderError(1, 'commander.unknownOption', 'x'), false)).toBe(2);
    expect(exitCodeOf(new CommanderError(0, 'commander.helpDisplayed', 'x'), false)).toBe(0);
    expect(exitCodeOf(new TypeError('x'), false)).toBe(1);
    expect(exitCodeOf(new TypeError('x'), true)).toBe(130);
    expect(exitCodeOf('text', false)).toBe(1);
  });
});

describe('errorText', () => {
  it('prints message, node and hint, and the stack only with DEBUG', () => {
    const error = new FlowCompressError('bad-input', 'No such\nop.', { node: 'conv\u001b[0m1', hint: 'Fix it.' });
    expect(errorText(error, {})).toBe('error: No such op.\n  node: conv [0m1\n  hint: Fix it.\n');
    expect(errorText(error, { DEBUG: '1' })).toContain('exit.test');
    expect(errorText(new TypeError('boom'), {})).toMatch(
      /^error: unexpected TypeError: boom\n {2}hint: [^\n]*DEBUG=1[^\n]*\n$/,
    );
  });
});
