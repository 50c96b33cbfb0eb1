/** All rules by operator. A new one is a line in its family's file, or a file and a line here. */
import type { Node } from '../onnx/graph.js';
import type { PruningRule, PruningRules } from './rule.js';
import { convolution } from './rules/convolution.js';
import { elementwise } from './rules/elementwise.js';
import { normalizations } from './rules/normalizations.js';
import { products } from './rules/products.js';
import { reductions } from './rules/reductions.js';
import { reshaping } from './rules/reshaping.js';
import { selecting } from './rules/selecting.js';
import { shapes } from './rules/shapes.js';

const RULES: ReadonlyMap<string, PruningRule> = new Map(
  Object.entries<PruningRule>({
    ...convolution,
    ...elementwise,
    ...normalizations,
    ...products,
    ...reductions,
    ...reshaping,
    ...selecting,
    ...shapes,
  } satisfies PruningRules),
);

export function pruningRule(node: Node): PruningRule | undefined {
  return RULES.get(node.domain === '' ? node.opType : `${node.domain}:${node.opType}`);
}
