/** activations */
import type { GradientRules } from '../rule.js';

export const activations: GradientRules = {};
