/** einsum */
import type { GradientRules } from '../rule.js';

export const einsum: GradientRules = {};
