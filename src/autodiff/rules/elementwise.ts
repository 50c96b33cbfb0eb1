/** elementwise */
import type { GradientRules } from '../rule.js';

export const elementwise: GradientRules = {};
