/** conv */
import type { ReferenceOperator } from '../evaluate.js';

export const conv: Readonly<Record<string, ReferenceOperator>> = {};
