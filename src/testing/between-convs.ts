/** Models with one operator or a few between two convolutions, for tests of pruning rules. */
import type { AttributeProto, ModelProto, NodeProto, TensorProto } from 'onnx-buf';
import { expect } from 'vitest';
import { intAttribute } from '../onnx/attributes.js';
import { DataType } from '../onnx/dtypes.js';
import { makeTensor } from '../onnx/tensor.js';
import { selectUnits } from '../pruning/selection.js';
import { info, op, tensorFeed, tinyModel, weights } from './graph-writing.js';
import { cutAndCheck } from './random-cuts.js';

export const scalar = (name: string, value: number): TensorProto =>
  makeTensor(name, DataType.FLOAT, [], Float32Array.of(value));
export const positive = (name: string, dims: readonly number[]): TensorProto =>
  makeTensor(
    name,
    DataType.FLOAT,
    dims,
    Float32Array.from({ length: dims.reduce((a, b) => a * b, 1) }, (_, i) => 1 + (i % 3)),
  );
export const int = (name: string, value: number): AttributeProto => intAttribute(name, value);

export interface BetweenCase {
  readonly name: string;
  readonly body: NodeProto[];
  readonly stored?: TensorProto[];
  /** Units of every group. */
  readonly units: readonly number[];
  /** Part of the reason why what the first layer makes is fixed. */
  readonly why?: RegExp;
  /** 18 by default. */
  readonly opset?: number;
  /** Input channels of the last layer; 8 by default. */
  readonly width?: number;
}

/** x [2, 3, 6, 6] -> 8 channels h [2, 8, 4, 4] -> body -> z [2, width, ., .] -> 5 channels y. */
function between({ body, stored = [], width = 8, opset = 18 }: BetweenCase): ModelProto {
  return tinyModel({
    opset,
    inputs: [info('x', ['N', 3, 6, 6])],
    outputs: [info('y', ['N', 5, 'h', 'w'])],
    nodes: [op('Conv x w b -> h', [], 'first'), ...body, op('Conv z v -> y', [], 'last')],
    initializers: [weights('w', [8, 3, 3, 3]), weights('b', [8], 2), weights('v', [5, width, 1, 1], 3), ...stored],
  });
}

/**
 * Holds the units of every group, or the reason why there are none, against what is expected; then removes every single unit,
 * and some of all groups at once, which must make no other difference than zeros would.
 */
export async function checkBetween(each: BetweenCase): Promise<void> {
  const model = between(each);
  const feeds = { x: tensorFeed([2, 3, 6, 6]) };
  const { dependencies } = await cutAndCheck(model, feeds, (found) => selectUnits(found, []));
  expect(dependencies.groups.map(({ units }) => units.length)).toEqual(each.units);
  const reasons = dependencies.fixed.filter(({ layer }) => layer === 'first').map(({ reason }) => reason);
  if (each.why) expect(reasons.join()).toMatch(each.why);
  for (const { index, units } of dependencies.groups) {
    for (const unit of units.length > 1 ? units.keys() : []) {
      await cutAndCheck(model, feeds, (found) => selectUnits(found, [{ group: index, units: [unit] }]));
    }
  }
  const { effect } = await cutAndCheck(model, feeds);
  if (each.units.length > 0) expect(effect).toBeGreaterThan(1e-4);
}
