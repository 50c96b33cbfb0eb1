/** resize */
import type { GradientRules } from '../rule.js';

export const resize: GradientRules = {};
