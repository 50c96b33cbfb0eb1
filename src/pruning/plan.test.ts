import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Graph } from '../onnx/graph.js';
import { traceDims, traceShapes } from '../runtime/trace.js';
import { engine, tensorFeed } from '../testing/graph-writing.js';
import { tinyResNet } from '../testing/tiny-models.js';
import { removableBranches } from './branches.js';
import { costModel } from './cost.js';
import type { SiteDamage } from './damage.js';
import { dependencyGroups } from './groups.js';
import { planCuts, type PlanPoint } from './plan.js';
import { findSites, GUARDS, takenBy, type Choice, type Site, type Taken } from './sites.js';

const MODEL = tinyResNet(17, 16);

async function prepared() {
  const graph = new Graph(MODEL);
  const dims = await traceDims(engine, MODEL, { x: tensorFeed([2, 3, 8, 8]) });
  const shapes = await traceShapes(engine, MODEL, { x: tensorFeed([1, 3, 8, 8]) });
  const dependencies = dependencyGroups(graph, dims);
  const branches = removableBranches(graph, shapes);
  const orders = dependencies.groups.map(({ units }) => ({ units: [...units] }));
  const first = dependencies.groups.map(({ units }) => units.length);
  const guards = { ...GUARDS, align: 4, least: 4 };
  const sites = findSites(dependencies, orders, first, branches, guards, { filters: true, layers: true });
  const total = costModel(graph, shapes, dependencies, 1);
  const costOf = ({ removed, gone, added }: Taken): number => total(removed, gone, added).macs!;
  return { dependencies, sites, costOf };
}

describe('a plan', () => {
  it('knows the widths of two groups and the branch', async () => {
    const { sites } = await prepared();
    expect(sites.map((site) => (site.kind === 'width' ? site.widths : site.unit.layers))).toEqual([
      [16, 12, 8, 4],
      [16, 12, 8, 4],
      ['block.a', 'block.b'],
    ]);
  });

  it('meets the goal wherever some choice does, for a damage never above what any choice costs that takes no more steps', async () => {
    const { dependencies, sites, costOf } = await prepared();
    const classes = dependencies.units.classOf.length;
    const cost = (choice: Choice): number => costOf(takenBy(choice, sites, classes));
    const whole = cost({ widths: new Map(), layers: new Set() });
    const everything = cost({
      widths: new Map([
        [0, 4],
        [1, 4],
      ]),
      layers: new Set(['block.sum']),
    });
    fc.assert(
      fc.property(
        fc.array(fc.double({ min: 0.01, max: 10, noNaN: true }), { minLength: 3, maxLength: 3 }),
        fc.double({ min: 0.05, max: 1, noNaN: true }),
        (prices, share) => {
          const damages = sites.map((site, i): SiteDamage => ({
            site,
            of: (width) => (site.kind === 'layers' ? prices[i]! : prices[i]! * (1 - width / 16) ** 2),
          }));
          const goal = share * whole;
          const plan = planCuts({ dependencies, sites, damages, costOf, goal });
          expect(plan.cost).toBe(cost(plan.choice));
          if (everything <= goal) expect(plan.cost).toBeLessThanOrEqual(goal);
          else expect(plan.cost).toBeLessThanOrEqual(whole);
          // Nothing that was taken could stay.
          const { widths, layers } = plan.choice;
          if (plan.cost <= goal)
            for (const group of widths.keys())
              expect(
                cost({ widths: new Map([...widths].filter(([other]) => other !== group)), layers }),
              ).toBeGreaterThan(goal);
          // A branch that is gone has no widths.
          if (plan.choice.layers.has('block.sum')) expect(plan.choice.widths.has(groupInside(sites))).toBe(false);
        },
      ),
      { numRuns: 100 },
    );
  });

  it('prices by worth where that is another cost, and takes what is worth nothing last', async () => {
    const { dependencies, sites, costOf } = await prepared();
    const none = takenBy({ widths: new Map(), layers: new Set() }, sites, dependencies.units.classOf.length);
    const whole = costOf(none);
    const damages = sites.map((site) => ({ site, of: (w: number) => (site.kind === 'layers' ? 1 : 1 - w / 16) }));
    const plan = (share: number) =>
      planCuts({
        ...{ dependencies, sites, damages, costOf, goal: share * whole },
        // Only the branch is worth anything.
        worthOf: ({ gone }) => (gone.size > 0 ? 0 : 1),
      }).choice;
    expect(plan(0.9)).toEqual({ widths: new Map(), layers: new Set(['block.sum']) });
    expect(plan(0.02).widths.size).toBeGreaterThan(0);
  });

  it('takes the branch when its answers hardly matter, and never when they matter most', async () => {
    const { dependencies, sites, costOf } = await prepared();
    const none = takenBy({ widths: new Map(), layers: new Set() }, sites, dependencies.units.classOf.length);
    const goal = 0.5 * costOf(none);
    const planFor = (branch: number) =>
      planCuts({
        ...{ dependencies, sites, costOf, goal },
        damages: sites.map((site) => ({ site, of: (w) => (site.kind === 'layers' ? branch : 1 - w / 16) })),
      }).choice;
    expect([...planFor(1e-6).layers]).toEqual(['block.sum']);
    expect(planFor(1e6).layers.size).toBe(0);
    expect(planFor(Infinity).layers.size).toBe(0);
  });

  it('tells what it would come to on the way, and stops where that says', async () => {
    const { dependencies, sites, costOf } = await prepared();
    const damages = sites.map((site, i): SiteDamage => ({
      site,
      of: (width) => (site.kind === 'layers' ? 3 : (i + 1) * (1 - width / 16) ** 2),
    }));
    const request = { dependencies, sites, damages, costOf };
    let seen: readonly PlanPoint[] = [];
    const whole = planCuts({ ...request, goal: (points) => (seen = points)[0]!.cost });
    expect(whole.choice).toEqual({ widths: new Map(), layers: new Set() });
    expect(seen[0]).toEqual({ cost: whole.cost, damage: 0 });
    expect(seen.length).toBeGreaterThan(3);
    for (const [i, { cost, damage }] of seen.entries()) {
      if (i === 0) continue;
      expect(cost).toBeLessThan(seen[i - 1]!.cost);
      expect(damage).toBeGreaterThan(seen[i - 1]!.damage);
      expect(planCuts({ ...request, goal: () => cost })).toEqual(planCuts({ ...request, goal: cost }));
    }
    // Nothing is left to take.
    expect(planCuts({ ...request, goal: 0 }).cost).toBe(seen.at(-1)!.cost);
  });
});

/** The group that lies in the branch. */
function groupInside(sites: readonly Site[]): number {
  const widths = sites.filter((site) => site.kind === 'width');
  return widths[1]!.group;
}
