import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Graph } from '../../onnx/graph.js';
import type { TracedValues } from '../../runtime/trace.js';
import { info, op, tinyModel } from '../../testing/graph-writing.js';
import { int8Candidates, type Int8Candidate } from './candidates.js';
import { planRegions, type ExecutionCosts } from './plan.js';

interface Step {
  kind: 'Add' | 'Sigmoid' | 'LeakyRelu' | 'Tanh';
  a: number;
  b: number;
}

const stepArbitrary = fc.record({
  kind: fc.constantFrom<Step['kind']>('Add', 'Sigmoid', 'LeakyRelu', 'Tanh'),
  a: fc.nat(),
  b: fc.nat(),
});
/** Costs are drawn from a list by position, so that a counterexample shrinks. */
const problem = fc.record({
  steps: fc.array(stepArbitrary, { minLength: 1, maxLength: 7 }),
  costs: fc.array(fc.integer({ min: 0, max: 9 }), { minLength: 40, maxLength: 40 }),
});

function graphOf(steps: Step[]): { graph: Graph; shapes: TracedValues } {
  const names = ['x'];
  const nodes = steps.map(({ kind, a, b }, i) => {
    const [left, right] = [names[a % names.length]!, names[b % names.length]!];
    names.push(`v${String(i)}`);
    return op(kind === 'Add' ? `Add ${left} ${right} -> v${String(i)}` : `${kind} ${left} -> v${String(i)}`);
  });
  const last = names.at(-1)!;
  nodes.push(op(`Tanh ${last} -> y`));
  const model = tinyModel({ inputs: [info('x', [1, 4])], outputs: [info('y', [1, 4])], nodes });
  return {
    graph: new Graph(model),
    shapes: new Map([...names, 'y'].map((n) => [n, { type: 'float32', dims: [1, 4] }])),
  };
}

function costsFrom(numbers: number[], graph: Graph): ExecutionCosts {
  const index = new Map([...graph.values()].map((value, i) => [value.name, i]));
  const pick = (name: string, salt: number): number => numbers[(index.get(name)! * 4 + salt) % numbers.length]!;
  return {
    node: ({ node }, execution) => pick(node.outputs[0]!.name, execution === 'int8' ? 0 : 1),
    quantize: (value) => pick(value.name, 2),
    dequantize: (value) => pick(value.name, 3),
    entry: ({ node }) => pick(node.outputs[0]!.name, 5) % 3,
  };
}

/** Cost of an assignment, straight from its definition. */
function costOf(
  graph: Graph,
  candidates: ReadonlyMap<string, Int8Candidate>,
  costs: ExecutionCosts,
  int8: ReadonlySet<string>,
): number {
  let total = 0;
  for (const [name, candidate] of candidates) total += costs.node(candidate, int8.has(name) ? 'int8' : 'float');
  for (const candidate of candidates.values()) {
    if (!int8.has(candidate.node.outputs[0]!.name)) continue;
    const inputs = new Set(candidate.node.inputs);
    total += costs.entry(candidate) * [...inputs].filter((v) => !int8.has(v!.name)).length;
  }
  for (const value of graph.values()) {
    const made = value.producer !== undefined && int8.has(value.name);
    const readers = [...value.uses].map((use) => int8.has(use.node.outputs[0]!.name));
    if (graph.isGraphOutput(value)) readers.push(false);
    if (made && readers.includes(false)) total += costs.dequantize(value);
    if (!made && readers.includes(true)) total += costs.quantize(value);
  }
  return total;
}

describe('planRegions', () => {
  it('finds the cheapest of all assignments', () => {
    let mixed = 0;
    fc.assert(
      fc.property(problem, ({ steps, costs: numbers }) => {
        const { graph, shapes } = graphOf(steps);
        const candidates = int8Candidates(graph, shapes, 'cpu');
        const costs = costsFrom(numbers, graph);
        const names = [...candidates.keys()];
        let best = Infinity;
        for (let mask = 0; mask < 1 << names.length; mask++) {
          const chosen = new Set(names.filter((_, i) => (mask >> i) & 1));
          best = Math.min(best, costOf(graph, candidates, costs, chosen));
        }
        const plan = planRegions(graph, candidates, costs);
        if (plan.size > 0 && plan.size < names.length) mixed++;
        expect(costOf(graph, candidates, costs, plan)).toBe(best);
      }),
      { numRuns: 200 },
    );
    expect(mixed).toBeGreaterThan(10);
  });

  it('prefers float where it costs the same', () => {
    const { graph, shapes } = graphOf([{ kind: 'Sigmoid', a: 0, b: 0 }]);
    const free: ExecutionCosts = { node: () => 1, quantize: () => 0, dequantize: () => 0, entry: () => 0 };
    expect(planRegions(graph, int8Candidates(graph, shapes, 'cpu'), free).size).toBe(0);
  });
});
