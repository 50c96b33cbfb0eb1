import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { ModelProto } from 'onnx-buf';
import { DataType } from '../onnx/dtypes.js';
import { emptyModel, Graph } from '../onnx/graph.js';
import { reduce } from '../onnx/ops.js';
import { makeTensor } from '../onnx/tensor.js';
import { tensorInfo } from '../onnx/value-info.js';
import { checkGradients, randomArray } from '../testing/check-gradients.js';
import { gradientModel } from '../testing/gradient-model.js';
import { array, type NdArray } from '../testing/reference/array.js';
import { evaluate } from '../testing/reference/evaluate.js';
import { normals } from '../testing/tiny-models.js';
import type { Loss } from '../training/losses.js';
import { contrast, distance, flowAlignment, integratedAlignment, relations } from './losses.js';

/** output, target -> loss [N]. */
function lossModel(loss: Loss, output: readonly number[], target: readonly number[], matrix?: NdArray): ModelProto {
  const graph = new Graph(emptyModel(17));
  const [a, b] = [
    graph.addInput(tensorInfo('output', DataType.FLOAT, output)),
    graph.addInput(tensorInfo('target', DataType.FLOAT, target)),
  ];
  if (matrix) graph.addInitializer(makeTensor('matrix', DataType.FLOAT, matrix.dims, Float32Array.from(matrix.data)));
  const value = loss({ graph, output: a, target: b, rank: output.length, temperature: 1 });
  value.info = tensorInfo(value.name, DataType.FLOAT, [output[0]!]);
  graph.outputs.push(value);
  return graph.toModel();
}

function lossesOf(loss: Loss, output: NdArray, target: NdArray, matrix?: NdArray): number[] {
  const model = lossModel(loss, output.dims, target.dims, matrix);
  const found = evaluate(model, { output, target }).get(model.graph!.output[0]!.name)!;
  expect(found.dims).toEqual([output.dims[0]]);
  return [...found.data];
}

const rowsOf = ({ dims, data }: NdArray): number[][] => {
  const width = data.length / dims[0]!;
  return Array.from({ length: dims[0]! }, (_, n) => [...data.subarray(n * width, (n + 1) * width)]);
};
const dot = (a: readonly number[], b: readonly number[]): number => a.reduce((sum, v, i) => sum + v * b[i]!, 0);
const norm = (a: readonly number[]): number => Math.sqrt(dot(a, a));
const unit = (a: readonly number[]): number[] => a.map((v) => v / norm(a));

function close(found: readonly number[], wanted: readonly number[], digits = 9): void {
  expect(found).toHaveLength(wanted.length);
  found.forEach((v, i) => {
    expect(v).toBeCloseTo(wanted[i]!, digits);
  });
}

/** 1/2 (KL(a || b) + KL(b || a)) of two numbers, as the definition has it. */
const asymmetry = (a: number, b: number): number => 0.5 * (a * Math.log(a / b) + b * Math.log(b / a));

describe('flowAlignment', () => {
  it('is the symmetric relative entropy of two flows', () => {
    const number = fc.double({ min: 1e-3, max: 3, noNaN: true });
    fc.assert(
      fc.property(number, number, (a, b) => {
        const [found] = lossesOf(flowAlignment, array([1], [b]), array([1], [a]));
        expect(found).toBeCloseTo(asymmetry(a + 1e-8, b + 1e-8), 12);
        expect(found).toBeGreaterThanOrEqual(0);
      }),
    );
  });

  it('is 0 with slope 0 for equal flows, and finite with a finite slope at 0', () => {
    const flows = array([4], [0.5, 0, 0, 1.5]);
    expect(lossesOf(flowAlignment, flows, flows)).toEqual([0, 0, 0, 0]);
    const slopes = (output: NdArray, target: NdArray): number[] => {
      const { model, names } = gradientModel(lossModel(flowAlignment, [4], [4]), [{ output, target }], {
        wanted: ['output'],
        loss: (graph, [losses]) => reduce(graph, 'ReduceSum', losses!),
      });
      return [...evaluate(model, { output, target }).get(names.get('output')!)!.data];
    };
    expect(slopes(flows, flows).map(Math.abs)).toEqual([0, 0, 0, 0]);
    // dA/db = (ln(b / a) + 1 - a / b) / 2
    const teacher = array([4], [0.5, 0.2, 0, 1]);
    const student = array([4], [0.7, 0, 0.3, 1]);
    const slope = (a: number, b: number): number => (Math.log(b / a) + 1 - a / b) / 2;
    slopes(student, teacher).forEach((found, i) => {
      const wanted = slope(teacher.data[i]! + 1e-8, student.data[i]! + 1e-8);
      expect(found / (wanted || 1)).toBeCloseTo(wanted === 0 ? 0 : 1, 6);
    });
    const [toZero] = lossesOf(flowAlignment, array([1], [0]), array([1], [0.5]));
    expect(toZero).toBeCloseTo(0.25 * Math.log(0.5 / 1e-8), 6);
  });
});

describe('integratedAlignment', () => {
  it('is the weighed sum over the points of the depth', () => {
    const quadrature = [0.5, 0.25, 0.125, 0.125];
    const [a, b] = [randomArray([3, 4], 1), randomArray([3, 4], 2)].map(({ dims, data }) =>
      array(dims, data.map(Math.abs)),
    );
    const wanted = rowsOf(a!).map((row, n) =>
      row.reduce((sum, v, g) => sum + quadrature[g]! * asymmetry(v + 1e-8, rowsOf(b!)[n]![g]! + 1e-8), 0),
    );
    close(lossesOf(integratedAlignment(quadrature), b!, a!), wanted);
  });
});

describe('distance', () => {
  it('is the norm of the difference of every sample', () => {
    const [a, b] = [randomArray([3, 2, 5], 1), randomArray([3, 2, 5], 2)];
    const wanted = rowsOf(a).map((row, n) => norm(row.map((v, i) => v - rowsOf(b)[n]![i]!)));
    close(lossesOf(distance, a, b), wanted, 6);
    // The slope of a norm at 0 is not defined: it must not be infinite.
    expect(lossesOf(distance, a, a)[0]).toBeLessThan(1e-5);
  });
});

describe('contrast', () => {
  it('is the cross-entropy of telling the own sample from all of the batch', () => {
    const [output, target, matrix] = [randomArray([4, 3], 1), randomArray([4, 5], 2), array([5, 3], normals(15, 3))];
    const t = 0.07;
    const u = rowsOf(output).map(unit);
    const columns = [0, 1, 2].map((k) => rowsOf(matrix).map((row) => row[k]!));
    const v = rowsOf(target).map((row) => unit(columns.map((column) => dot(row, column))));
    const wanted = u.map((own, i) => {
      const scores = v.map((other) => Math.exp(dot(own, other) / t));
      return -Math.log(scores[i]! / scores.reduce((a, b) => a + b, 0));
    });
    close(lossesOf(contrast('matrix', t), output, target, matrix), wanted, 6);
  });

  it('has the gradients of differences, in the learned matrix too', () => {
    const matrix = array([5, 3], normals(15, 3));
    const given = { output: randomArray([4, 3], 1), target: randomArray([4, 5], 2) };
    const found = checkGradients(lossModel(contrast('matrix', 0.3), [4, 3], [4, 5], matrix), given, {
      wanted: ['output', 'matrix'],
    });
    for (const { data } of found.values()) expect(Math.max(...data.map(Math.abs))).toBeGreaterThan(0.01);
  });
});

describe('relations', () => {
  it('is the squared distance of the Gram matrices of norm 1, shared out over the samples', () => {
    const [a, b] = [randomArray([4, 2, 3], 1), randomArray([4, 7], 2)];
    const gram = (x: NdArray): number[][] => {
      const rows = rowsOf(x);
      const products = rows.map((r) => rows.map((s) => dot(r, s)));
      const size = norm(products.flat());
      return products.map((row) => row.map((v) => v / size));
    };
    const [own, theirs] = [gram(a), gram(b)];
    const wanted = own.map((row, i) => row.reduce((sum, v, j) => sum + (v - theirs[i]![j]!) ** 2, 0));
    close(lossesOf(relations, a, b), wanted);
    const turned = array(
      [4, 7],
      rowsOf(b).flatMap((row) => [...row.slice(1), row[0]!].map((v) => -3 * v)),
    );
    close(lossesOf(relations, turned, b), [0, 0, 0, 0]);
  });

  it.each<[string, Loss, number[], number[]]>([
    ['relations', relations, [4, 2, 3], [4, 7]],
    ['distance', distance, [3, 5], [3, 5]],
  ])('%s has the gradient of differences', (_, loss, output, target) => {
    const given = { output: randomArray(output, 1), target: randomArray(target, 2) };
    const [gradient] = checkGradients(lossModel(loss, output, target), given, { wanted: ['output'] }).values();
    expect(Math.max(...gradient!.data.map(Math.abs))).toBeGreaterThan(0.01);
  });
});
