import { describe, expect, it } from 'vitest';
import { intAttribute, intsAttribute } from '../../onnx/attributes.js';
import { makeTensor } from '../../onnx/tensor.js';
import { checkGradients, randomArray } from '../../testing/check-gradients.js';
import { info, op, tinyModel } from '../../testing/graph-writing.js';

describe('reductions', () => {
  it.each(['ReduceSum', 'ReduceMean'])('%s over any axes, kept or not', (name) => {
    for (const axes of [[0], [1, -1], [-2], []]) {
      for (const keep of [0, 1]) {
        const asInput = name === 'ReduceSum' && axes.length > 0;
        const attributes = [intAttribute('keepdims', keep)];
        if (!asInput && axes.length > 0) attributes.push(intsAttribute('axes', axes));
        const model = tinyModel({
          opset: 13,
          inputs: [info('x', [2, 3, 4])],
          outputs: [info('y')],
          nodes: [op(`${name} x ${asInput ? 'axes ' : ''}-> y`, attributes)],
          initializers: asInput ? [makeTensor('axes', 7, [axes.length], BigInt64Array.from(axes.map(BigInt)))] : [],
        });
        expect(checkGradients(model, { x: randomArray([2, 3, 4], 1) }).size).toBe(1);
      }
    }
  });
});
