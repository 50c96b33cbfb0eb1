import { describe, expect, it } from 'vitest';
import { buildNetwork } from './build.js';
import { proposedStudents } from './candidates.js';

const names = (task: Parameters<typeof proposedStudents>[0]): string[] =>
  proposedStudents(task).map(({ name }) => name);

describe('proposedStudents', () => {
  it('builds every one of them for the images and classes of the task', () => {
    const task = { inputSize: 28, channels: 1, classes: 7 };
    for (const { name, architecture, options } of proposedStudents(task)) {
      const dims = (part: 'input' | 'output'): unknown[] => {
        const type = buildNetwork(architecture, options).model.graph![part][0]!.type!.value;
        return type.case === 'tensorType' ? type.value.shape!.dim.slice(1).map(({ value }) => Number(value.value)) : [];
      };
      expect([name, dims('input')]).toEqual([name, [1, 28, 28]]);
      expect([name, dims('output')]).toEqual([name, [7]]);
    }
  });

  it('proposes small networks for small images, and leaves out what these are too small for', () => {
    const small = names({ inputSize: 32, channels: 3, classes: 10 });
    expect(small).toEqual(
      expect.arrayContaining(['resnet8, width 0.5', 'resnet20', 'lenet5', 'simple-cnn', 'mobilenet-v2, width 0.25']),
    );
    expect(small.some((name) => name.startsWith('resnet18'))).toBe(false);
    expect(new Set(small).size).toBe(small.length);
    const tiny = names({ inputSize: 8, channels: 1, classes: 3 });
    expect(tiny).toContain('resnet8');
    expect(tiny).not.toContain('lenet5');
    const large = names({ inputSize: 224, channels: 3, classes: 1000 });
    expect(large).toContain('resnet18');
    expect(large.some((name) => name.startsWith('resnet20'))).toBe(false);
  });

  it('halves depth and width of a vision transformer', () => {
    const transformer = { patchSize: 4, depth: 6, channels: 192 };
    const students = proposedStudents({ inputSize: 32, channels: 3, classes: 10, transformer });
    const vits = students.filter(({ architecture }) => architecture.name === 'vit-ti');
    expect(vits.map(({ name }) => name)).toEqual([
      'vit-ti, depth 3',
      'vit-ti, depth 6, width 0.5',
      'vit-ti, depth 3, width 0.5',
    ]);
    expect(vits.every(({ options }) => options.patchSize === 4)).toBe(true);
  });
});
