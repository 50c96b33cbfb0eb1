/** quantization */
import type { ReferenceOperator } from '../evaluate.js';

export const quantization: Readonly<Record<string, ReferenceOperator>> = {};
