/** A choice carried out on a model: one cut, the readers of what went re-fitted, branches taken out. */
import type { ModelProto } from 'onnx-buf';
import type { Gram } from '../flow/gram-probe.js';
import { removeBranches } from './branches.js';
import { cutUnits } from './cut.js';
import type { Dependencies } from './groups.js';
import type { LayerUnits } from './layer-units.js';
import { refitLayers } from './refit-layers.js';
import type { Selection } from './selection.js';
import { takenBy, type Choice, type Site } from './sites.js';

export interface Choosable {
  readonly model: ModelProto;
  readonly dependencies: Dependencies;
  readonly layers: readonly LayerUnits[];
  /** By layer name; empty where nothing is to be re-fitted. */
  readonly grams: ReadonlyMap<string, Gram>;
  readonly sites: readonly Site[];
}

export interface Applied {
  /** Units and branches gone, the readers re-fitted. */
  readonly model: ModelProto;
  /** With the units gone and nothing else, as `checkCut` wants it. */
  readonly cut: ModelProto;
  /** The same without the branches. */
  readonly plain: ModelProto;
  readonly selection: Selection;
}

export function applyChoice({ model, dependencies, layers, grams, sites }: Choosable, choice: Choice): Applied {
  const { removed } = takenBy(choice, sites, dependencies.units.classOf.length);
  const selection = { dependencies, removed };
  const cut = removed.includes(1) ? cutUnits(model, selection) : model;
  const fitted = cut === model || grams.size === 0 ? cut : refitLayers(model, cut, layers, removed, grams);
  const { branches } = choice;
  return {
    model: removeBranches(fitted, branches),
    plain: fitted === cut && branches.size === 0 ? cut : removeBranches(cut, branches),
    ...{ cut, selection },
  };
}
