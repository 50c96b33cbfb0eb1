/** What a model can be made cheaper by: fewer units of a group, a residual branch less, or a projection in the place of layers. */
import type { Node } from '../onnx/graph.js';
import type { Branch } from './branches.js';
import type { Dependencies } from './groups.js';
import type { Projection } from './projections.js';
import type { RemovalOrder } from './removal-order.js';

/** How widths may fall. */
export interface Guards {
  /** Share of a group's units in the original that stay at least. */
  readonly leastShare: number;
  /** Units of a group that stay at least, where it had four times as many. */
  readonly least: number;
  /** Groups are left with a multiple of so many units; small groups with a multiple of the largest power of two that is at most their half. */
  readonly align: number;
}

export const GUARDS: Guards = { leastShare: 0.1, least: 8, align: 8 };

/** Fewer units of one group. */
export interface WidthSite {
  readonly kind: 'width';
  /** Place of the group in the list. */
  readonly group: number;
  /** Classes, the first to go first. */
  readonly order: readonly number[];
  /** Units that may be left, descending; the first is all of them. */
  readonly widths: readonly number[];
}

/** What the layer stage takes at a time. */
export type LayerUnit = Branch | Projection;

/** One branch less, or layers replaced by one projection. */
export interface LayerSite {
  readonly kind: 'layers';
  readonly unit: LayerUnit;
}

export type Site = WidthSite | LayerSite;

/** Widths per group at most: large groups fall in larger steps. */
const LEVELS = 8;

/**
 * @param orders by place of the group; groups without one keep their units
 * @param firstUnits units that every group had in the original, by place in the list
 * @param allowed what may be taken: filters (units of groups), layers
 */
export function findSites(
  { groups }: Dependencies,
  orders: readonly (RemovalOrder | undefined)[],
  firstUnits: readonly number[],
  layers: readonly LayerUnit[],
  guards: Guards,
  allowed: { readonly filters: boolean; readonly layers: boolean },
): Site[] {
  const sites: Site[] = [];
  if (allowed.filters) {
    for (const { index, kind, units } of groups) {
      const order = orders[index];
      if (kind === 'inputs' || !order) continue;
      const widths = widthsOf(units.length, firstUnits[index]!, kind === 'heads' ? 1 : guards.align, guards);
      if (widths.length > 1) sites.push({ kind: 'width', group: index, order: order.units, widths });
    }
  }
  if (allowed.layers) for (const unit of layers) sites.push({ kind: 'layers', unit });
  return sites;
}

function widthsOf(now: number, first: number, align: number, { leastShare, least }: Guards): number[] {
  const unit = first >= 2 * align ? align : 2 ** Math.floor(Math.log2(Math.max(1, first / 2)));
  const lowest = Math.max(1, Math.ceil(first * leastShare), Math.min(least, Math.floor(first / 4)));
  const all: number[] = [];
  for (let width = Math.ceil(now / unit) * unit - unit; width >= lowest; width -= unit) all.push(width);
  const stride = Math.ceil(all.length / LEVELS);
  // The narrowest one is always there.
  return [now, ...all.filter((_, i) => (all.length - 1 - i) % stride === 0)];
}

/** A choice at some of the sites: widths by place of the group, names of layer units. */
export interface Choice {
  readonly widths: ReadonlyMap<number, number>;
  readonly layers: ReadonlySet<string>;
}

export const NOTHING: Choice = { widths: new Map(), layers: new Set() };

/** What a choice takes, and what it puts in its place, as cuts and costs want it. */
export interface Taken {
  /** 1 for every class that goes. */
  readonly removed: Uint8Array;
  readonly gone: ReadonlySet<Node>;
  readonly added: readonly Projection[];
}

export function takenBy(choice: Choice, sites: readonly Site[], classes: number): Taken {
  const removed = new Uint8Array(classes);
  const gone = new Set<Node>();
  const added: Projection[] = [];
  for (const site of sites) {
    if (site.kind === 'layers') {
      if (!choice.layers.has(site.unit.name)) continue;
      for (const node of site.unit.nodes) gone.add(node);
      if (site.unit.kind === 'projection') added.push(site.unit);
      continue;
    }
    const width = choice.widths.get(site.group) ?? site.order.length;
    for (const unit of site.order.slice(0, site.order.length - width)) removed[unit] = 1;
  }
  return { removed, gone, added };
}

/** The sites whose groups go with a branch, or with layers that a projection stands for. */
export function sitesWithin({ layers }: LayerUnit, sites: readonly Site[], { groups }: Dependencies): WidthSite[] {
  const inside = new Set(layers);
  return sites.filter(
    (site): site is WidthSite => site.kind === 'width' && groups[site.group]!.layers.every((name) => inside.has(name)),
  );
}
