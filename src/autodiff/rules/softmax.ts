/** softmax */
import type { GradientRules } from '../rule.js';

export const softmax: GradientRules = {};
