/** normalization */
import type { GradientRules } from '../rule.js';

export const normalization: GradientRules = {};
