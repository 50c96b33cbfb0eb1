/** quantization */
import type { GradientRules } from '../rule.js';

export const quantization: GradientRules = {};
