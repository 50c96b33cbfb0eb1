/** A choice carried out on a model: one cut, the readers of what went re-fitted, projections put in, branches taken out. */
import type { ModelProto } from 'onnx-buf';
import type { ChannelSums } from '../flow/channel-map.js';
import type { Gram } from '../flow/gram-probe.js';
import { removeBranches } from './branches.js';
import { cutUnits } from './cut.js';
import type { Dependencies } from './groups.js';
import type { LayerUnits } from './layer-units.js';
import { fitProjection, withProjections, type FittedProjection } from './project.js';
import { refitLayers } from './refit-layers.js';
import type { Selection } from './selection.js';
import { takenBy, type Choice, type LayerSite, type Site } from './sites.js';

export interface Choosable {
  readonly model: ModelProto;
  readonly dependencies: Dependencies;
  readonly layers: readonly LayerUnits[];
  /** By layer name; empty where nothing is to be re-fitted. */
  readonly grams: ReadonlyMap<string, Gram>;
  readonly sites: readonly Site[];
  /** What projections are fitted to, by their names. */
  readonly sums: ReadonlyMap<string, ChannelSums>;
}

export interface Applied {
  /** Units and layers gone, the readers re-fitted. */
  readonly model: ModelProto;
  /** With the units gone and nothing else. */
  readonly cut: ModelProto;
  /** The same with the projections, and without the branches. */
  readonly plain: ModelProto;
  readonly projections: readonly FittedProjection[];
  readonly selection: Selection;
}

export function applyChoice({ model, dependencies, layers, grams, sites, sums }: Choosable, choice: Choice): Applied {
  const { removed, added } = takenBy(choice, sites, dependencies.units.classOf.length);
  const selection = { dependencies, removed };
  const cut = removed.includes(1) ? cutUnits(model, selection) : model;
  const fitted = cut === model || grams.size === 0 ? cut : refitLayers(model, cut, layers, removed, grams);
  const projections = added.map((one) => fitProjection(one, sums.get(one.name)!, dependencies, removed));
  const branches = new Set(sites.flatMap((site) => (isBranchOf(site, choice) ? [site.unit.name] : [])));
  // Projections first: what they read may be the sum of a branch.
  const without = (whole: ModelProto): ModelProto => removeBranches(withProjections(whole, projections), branches);
  const plain = without(cut);
  return { model: fitted === cut ? plain : without(fitted), ...{ plain, cut, projections, selection } };
}

function isBranchOf(site: Site, { layers }: Choice): site is LayerSite {
  return site.kind === 'layers' && site.unit.kind === 'branch' && layers.has(site.unit.name);
}
