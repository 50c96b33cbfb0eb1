/** All gradient rules. A new one is a line in the family's file, or a file and a line here. */
import type { GradientRules } from './rule.js';
import { activations } from './rules/activations.js';
import { arithmetic } from './rules/arithmetic.js';
import { conv } from './rules/conv.js';
import { einsum } from './rules/einsum.js';
import { elementwise } from './rules/elementwise.js';
import { indexing } from './rules/indexing.js';
import { matmul } from './rules/matmul.js';
import { movement } from './rules/movement.js';
import { normalization } from './rules/normalization.js';
import { pooling } from './rules/pooling.js';
import { quantization } from './rules/quantization.js';
import { reductions } from './rules/reductions.js';
import { resize } from './rules/resize.js';
import { softmax } from './rules/softmax.js';

export const GRADIENT_RULES: GradientRules = {
  ...activations,
  ...arithmetic,
  ...conv,
  ...einsum,
  ...elementwise,
  ...indexing,
  ...matmul,
  ...movement,
  ...normalization,
  ...pooling,
  ...quantization,
  ...reductions,
  ...resize,
  ...softmax,
};
