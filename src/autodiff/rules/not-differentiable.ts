/** Operators that are constant almost everywhere: nothing flows back through them. */
import type { GradientRules } from '../rule.js';

const OPERATORS = [
  ...['Shape', 'Size', 'ArgMax', 'ArgMin', 'NonZero', 'OneHot', 'Range', 'ConstantOfShape', 'EyeLike'],
  ...['Equal', 'Greater', 'GreaterOrEqual', 'Less', 'LessOrEqual', 'And', 'Or', 'Xor', 'Not', 'IsNaN', 'IsInf'],
  ...['Sign', 'Floor', 'Ceil', 'Round'],
] as const;

export const notDifferentiable: GradientRules = Object.fromEntries(OPERATORS.map((op) => [op, () => []]));
