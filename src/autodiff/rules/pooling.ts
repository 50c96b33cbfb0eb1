/** pooling */
import type { GradientRules } from '../rule.js';

export const pooling: GradientRules = {};
