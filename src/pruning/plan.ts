/**
 * Which units and layers go so that a model costs no more than asked: always what adds the least divergence per cost saved,
 * over all sites, until the goal is met.
 */
import type { SiteDamage } from './damage.js';
import type { Dependencies } from './groups.js';
import { sitesWithin, takenBy, type Choice, type LayerSite, type Site, type Taken, type WidthSite } from './sites.js';

export type CostOf = (taken: Taken) => number;

/** What a plan comes to on its way, with everything that was taken so far. */
export interface PlanPoint {
  readonly cost: number;
  /** Summed divergence of what was taken. */
  readonly damage: number;
}

/** What a model may cost, or how that is told from all that could be taken: the first point takes nothing. */
export type PlanGoal = number | ((points: readonly PlanPoint[]) => number);

export interface PlanRequest {
  readonly dependencies: Dependencies;
  readonly sites: readonly Site[];
  readonly damages: readonly SiteDamage[];
  /** Cost of the model once a choice has been carried out, in the unit of the goal. */
  readonly costOf: CostOf;
  /** What cuts are priced by, where that is another cost. */
  readonly worthOf?: CostOf;
  readonly goal: PlanGoal;
}

export interface Plan {
  readonly choice: Choice;
  readonly cost: number;
}

interface Saving {
  readonly cost: number;
  readonly worth: number;
}

const less = (a: Saving, b: Saving): Saving => ({ cost: a.cost - b.cost, worth: a.worth - b.worth });

/** What a move would do. */
interface Offer {
  readonly width: number;
  readonly damage: number;
  readonly saved: Saving;
}

interface Move {
  readonly site: Site;
  readonly width: number;
  readonly price: number;
}

/** The plan that meets the goal; where none does, the cheapest there is. */
export function planCuts(request: PlanRequest): Plan {
  const { dependencies, sites, damages } = request;
  const classes = dependencies.units.classOf.length;
  const ofChoice =
    (cost: CostOf) =>
    (choice: Choice): number =>
      cost(takenBy(choice, sites, classes));
  const costOf = ofChoice(request.costOf);
  const worthOf = request.worthOf ? ofChoice(request.worthOf) : costOf;
  const goal =
    typeof request.goal === 'number' ? request.goal : request.goal([...pointsOnTheWay(request, costOf, worthOf)]);
  const state = new State(request, costOf, worthOf);
  let cost = costOf(state.choice);
  while (cost > goal) {
    const move = state.bestMove();
    if (!move) break;
    state.make(move);
    cost = costOf(state.choice);
  }
  return cost > goal ? { choice: state.choice, cost } : givenBack(sites, damages, goal, state.choice, costOf);
}

function* pointsOnTheWay(
  request: PlanRequest,
  costOf: (choice: Choice) => number,
  worthOf: (choice: Choice) => number,
): Generator<PlanPoint> {
  const state = new State(request, costOf, worthOf);
  for (;;) {
    const { choice } = state;
    const damage = request.damages.reduce((sum, one) => sum + damageIn(choice, one), 0);
    yield { cost: costOf(choice), damage };
    const move = state.bestMove();
    if (!move) return;
    state.make(move);
  }
}

/** What a choice does at a site. */
function damageIn({ widths, layers }: Choice, { site, of }: SiteDamage): number {
  if (site.kind === 'layers') return layers.has(site.unit.name) ? of(0) : 0;
  return of(widths.get(site.group) ?? site.order.length);
}

/** The last moves may have taken more than was needed: what does most damage is given back, as far as the goal allows. */
function givenBack(
  sites: readonly Site[],
  damages: readonly SiteDamage[],
  goal: number,
  choice: Choice,
  costOf: (choice: Choice) => number,
): Plan {
  const places = new Map(sites.map((site, i) => [site, i]));
  const taken = damages
    .map((damage) => ({ site: damage.site, damage: damageIn(choice, damage) }))
    .filter(({ damage }) => damage > 0)
    .sort((a, b) => b.damage - a.damage || places.get(a.site)! - places.get(b.site)!);
  let best: Plan = { choice, cost: costOf(choice) };
  for (const { site } of taken) {
    for (const less of returns(site, best.choice)) {
      const cost = costOf(less);
      if (cost > goal) continue;
      best = { choice: less, cost };
      break;
    }
  }
  return best;
}

/** Choices that take less at a site, the one that takes least first. */
function returns(site: Site, { widths, layers }: Choice): Choice[] {
  if (site.kind === 'layers') {
    const left = new Set([...layers].filter((name) => name !== site.unit.name));
    return left.size < layers.size ? [{ widths, layers: left }] : [];
  }
  const now = widths.get(site.group);
  if (now === undefined) return [];
  const others = [...widths].filter(([group]) => group !== site.group);
  return site.widths
    .filter((width) => width > now)
    .map((width) => ({
      widths: new Map(width === site.order.length ? others : [...others, [site.group, width] as const]),
      layers,
    }));
}

class State {
  private readonly widths = new Map<number, number>();
  private readonly taken = new Set<LayerSite>();
  /** What a site saves of the whole model, by width. */
  private readonly saved: ReadonlyMap<Site, (width: number) => Saving>;
  private readonly damage: ReadonlyMap<Site, SiteDamage>;

  constructor(
    private readonly request: PlanRequest,
    costOf: (choice: Choice) => number,
    worthOf: (choice: Choice) => number,
  ) {
    this.damage = new Map(request.damages.map((damage) => [damage.site, damage]));
    const [cost, worth] = [costOf(this.choice), worthOf(this.choice)];
    const savingOf = (choice: Choice): Saving => ({ cost: cost - costOf(choice), worth: worth - worthOf(choice) });
    this.saved = new Map(
      request.sites.map((site): readonly [Site, (width: number) => Saving] => {
        if (site.kind === 'layers') {
          const saving = savingOf({ widths: new Map(), layers: new Set([site.unit.name]) });
          return [site, () => saving];
        }
        const known = new Map(
          site.widths.map((width) => [
            width,
            savingOf({ widths: new Map([[site.group, width]]), layers: new Set<string>() }),
          ]),
        );
        return [site, (width) => known.get(width)!];
      }),
    );
  }

  get choice(): Choice {
    return { widths: new Map(this.widths), layers: new Set([...this.taken].map(({ unit }) => unit.name)) };
  }

  make({ site, width }: Move): void {
    if (site.kind === 'width') this.widths.set(site.group, width);
    else {
      this.taken.add(site);
      for (const inner of this.within(site)) this.widths.delete(inner.group);
    }
  }

  /**
   * The move with the least divergence per worth saved; of equal ones the first. Where none is worth anything, the one with the
   * least divergence per cost saved.
   */
  bestMove(): Move | undefined {
    let best: (Move & { readonly worthless: boolean }) | undefined;
    for (const site of this.request.sites) {
      for (const { width, damage, saved } of site.kind === 'width' ? this.narrower(site) : this.without(site)) {
        if (!(saved.cost > 0) || damage === Infinity) continue;
        const worthless = !(saved.worth > 0);
        const price = damage / (worthless ? saved.cost : saved.worth);
        if (!best || (best.worthless === worthless ? price < best.price : !worthless))
          best = { site, width, price, worthless };
      }
    }
    return best;
  }

  private *narrower(site: WidthSite): Generator<Offer> {
    if ([...this.taken].some((other) => this.within(other).includes(site))) return;
    const now = this.widths.get(site.group) ?? site.order.length;
    const damage = this.damage.get(site)!;
    const saved = this.saved.get(site)!;
    for (const width of site.widths) {
      if (width >= now) continue;
      yield { width, damage: damage.of(width) - damage.of(now), saved: less(saved(width), saved(now)) };
    }
  }

  private *without(site: LayerSite): Generator<Offer> {
    if ([...this.taken].some((other) => exclude(site, other))) return;
    let damage = this.damage.get(site)!.of(0);
    let saved = this.saved.get(site)!(0);
    for (const inner of this.within(site)) {
      const now = this.widths.get(inner.group) ?? inner.order.length;
      damage -= this.damage.get(inner)!.of(now);
      saved = less(saved, this.saved.get(inner)!(now));
    }
    yield { width: 0, damage: Math.max(damage, 0), saved };
  }

  private readonly inside = new Map<LayerSite, WidthSite[]>();
  private within(site: LayerSite): WidthSite[] {
    let known = this.inside.get(site);
    if (!known) {
      known = sitesWithin(site.unit, this.request.sites, this.request.dependencies);
      this.inside.set(site, known);
    }
    return known;
  }
}

/** Two projections cannot stand for the same layer; branches may lie in one another. */
function exclude(a: LayerSite, b: LayerSite): boolean {
  if (a === b) return true;
  if (a.unit.kind === 'branch' || b.unit.kind === 'branch') return false;
  const { nodes } = b.unit;
  return [...a.unit.nodes].some((node) => nodes.has(node));
}
