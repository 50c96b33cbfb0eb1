/** Operators of the reference evaluator. */
import type { ReferenceOperator } from './operator.js';
import { activations } from './ops/activations.js';
import { conv } from './ops/conv.js';
import { einsum } from './ops/einsum.js';
import { elementwise } from './ops/elementwise.js';
import { indexing } from './ops/indexing.js';
import { linear } from './ops/linear.js';
import { movement } from './ops/movement.js';
import { normalization } from './ops/normalization.js';
import { pooling } from './ops/pooling.js';
import { quantization } from './ops/quantization.js';
import { reductions } from './ops/reductions.js';
import { resize } from './ops/resize.js';
import { softmax } from './ops/softmax.js';

export const REFERENCE_OPERATORS: Readonly<Record<string, ReferenceOperator>> = {
  ...activations,
  ...conv,
  ...einsum,
  ...elementwise,
  ...indexing,
  ...linear,
  ...movement,
  ...normalization,
  ...pooling,
  ...quantization,
  ...reductions,
  ...resize,
  ...softmax,
};
