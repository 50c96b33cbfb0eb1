/** indexing */
import type { ReferenceOperator } from '../evaluate.js';

export const indexing: Readonly<Record<string, ReferenceOperator>> = {};
