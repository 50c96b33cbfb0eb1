/** resize */
import type { ReferenceOperator } from '../evaluate.js';

export const resize: Readonly<Record<string, ReferenceOperator>> = {};
