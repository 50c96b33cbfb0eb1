/** conv */
import type { GradientRules } from '../rule.js';

export const conv: GradientRules = {};
