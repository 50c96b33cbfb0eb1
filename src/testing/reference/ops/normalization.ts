/** normalization */
import type { ReferenceOperator } from '../evaluate.js';

export const normalization: Readonly<Record<string, ReferenceOperator>> = {};
