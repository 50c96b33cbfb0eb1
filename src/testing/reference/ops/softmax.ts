/** softmax */
import type { ReferenceOperator } from '../evaluate.js';

export const softmax: Readonly<Record<string, ReferenceOperator>> = {};
