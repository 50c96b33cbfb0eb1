/** movement */
import type { GradientRules } from '../rule.js';

export const movement: GradientRules = {};
