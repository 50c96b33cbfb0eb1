/** pooling */
import type { ReferenceOperator } from '../evaluate.js';

export const pooling: Readonly<Record<string, ReferenceOperator>> = {};
