/** indexing */
import type { GradientRules } from '../rule.js';

export const indexing: GradientRules = {};
