/** activations */
import type { ReferenceOperator } from '../evaluate.js';

export const activations: Readonly<Record<string, ReferenceOperator>> = {};
