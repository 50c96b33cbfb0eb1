import { describe, expect, it } from 'vitest';
import { Graph } from '../onnx/graph.js';
import { readFloats } from '../onnx/tensor.js';
import { runOnce } from '../runtime/run-once.js';
import { engine } from '../testing/graph-writing.js';
import { tinyResNet } from '../testing/tiny-models.js';
import { smallNetwork, zooFeeds } from '../testing/zoo-models.js';
import { readParameters } from '../training/parameters.js';
import { relativeDifference } from '../pruning/check-cut.js';
import { floatStudent } from './float-student.js';

const NONE = { slots: [], values: new Float32Array() };

describe('a float model as a student', () => {
  it.each(['resnet8', 'vit-ti'])('%s: computes what the model computes, and gives it back', async (name) => {
    const model = smallNetwork(name);
    const student = floatStudent(model);
    const feeds = zooFeeds(model, 2);
    const expected = await runOnce(engine, model, feeds);
    const found = await runOnce(engine, student.model, feeds);
    for (const [output, value] of Object.entries(expected))
      expect(relativeDifference(value, found[output])).toBeLessThan(1e-5);
    const flat = readParameters(student.model, student.parameters);
    const back = await runOnce(engine, student.of(flat, NONE), feeds);
    for (const [output, value] of Object.entries(expected))
      expect(relativeDifference(value, back[output])).toBeLessThan(1e-5);
  });

  it('counts every channel of a weight in its own size', () => {
    const model = smallNetwork('resnet8');
    const student = floatStudent(model);
    const graph = new Graph(student.model);
    for (const { name, dims } of student.parameters) {
      const values = readFloats(graph.mustGet(name).initializer!);
      if (dims.length !== 4) continue;
      const size = values.length / dims[0]!;
      for (let c = 0; c < dims[0]!; c++) {
        const row = values.subarray(c * size, (c + 1) * size);
        expect(Math.sqrt(row.reduce((sum, v) => sum + v * v, 0) / size)).toBeCloseTo(1, 4);
      }
    }
    expect(student.parameters.length).toBeGreaterThan(5);
  });

  it('moves a weight by its own size', () => {
    const model = tinyResNet();
    const student = floatStudent(model);
    const flat = readParameters(student.model, student.parameters);
    const moved = student.of(
      flat.map((v) => 1.5 * v),
      NONE,
    );
    const [a, b] = [new Graph(model), new Graph(moved)];
    const weight = [...a.values()].find(({ initializer }) => initializer?.dims.length === 4)!;
    const before = readFloats(weight.initializer!);
    const after = readFloats(b.mustGet(weight.name).initializer!);
    before.forEach((v, i) => expect(after[i]).toBeCloseTo(1.5 * v, 4));
  });
});
