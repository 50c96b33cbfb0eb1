/** einsum */
import type { ReferenceOperator } from '../evaluate.js';

export const einsum: Readonly<Record<string, ReferenceOperator>> = {};
