/** Sizes that windows slide over. */
import { FlowCompressError } from '../../errors.js';
import type { Value } from '../../onnx/graph.js';
import type { GradientContext } from '../rule.js';

/**
 * Every dim of a value but the batch.
 * @throws FlowCompressError `unsupported` where one of them varies
 */
export function knownSizes({ node, shapeOf }: Pick<GradientContext, 'node' | 'shapeOf'>, value: Value): number[] {
  return shapeOf(value)
    .slice(1)
    .map((size) => {
      if (size !== undefined) return size;
      throw new FlowCompressError(
        'unsupported',
        `'${value.name}' has no fixed size, which training this ${node.opType} needs.`,
        {
          node: node.label,
          hint: 'Export the model with fixed sizes; only the batch may vary.',
        },
      );
    });
}
