/** How the units that can be or were removed from a model are told, in the words of every rendering. */
import { formatCount } from './format.js';
import type { RemovableUnits } from './report.js';

type Group = RemovableUnits['groups'][number];
type Fixed = RemovableUnits['fixed'][number];

/** What stands for a group: the layers that make its units, or the weights that would lose slices. */
export function groupName({ layers, members = [] }: Pick<Group, 'layers'> & Partial<Pick<Group, 'members'>>): string {
  const names = layers.length > 0 ? layers : members.map(({ initializer }) => initializer);
  return names.length > 0 ? names.join(' + ') : 'no layer';
}

/** The weights that lose slices, as `name[axis]`; all of them, or the first and how many more. */
export function tiedWeights({ members }: Group, every: boolean): string {
  const names = members.map(({ initializer, axis }) => `${initializer}[${String(axis)}]`);
  return every || names.length < 2 ? names.join(', ') : `${names[0]} and ${String(names.length - 1)} more`;
}

export function fixedCount({ count, of }: Fixed): string {
  return count === of ? `all ${String(of)}` : `${String(count)} of ${String(of)}`;
}

export function fixedReason({ reason, node }: Fixed): string {
  return node === undefined ? reason : `${node}: ${reason}`;
}

/** Heads of the columns of `layerCells`. */
export const LAYERS_HEAD = ['what can go whole', 'layers', 'params', 'MACs'];

export function layerCells({ name, layers, params, macs }: NonNullable<RemovableUnits['layers']>[number]): string[] {
  return [name, String(layers.length), formatCount(params), macs === undefined ? '' : formatCount(macs)];
}

export const LAYERS_CAPTION =
  'Residual branches that can be taken out, their sums keeping the skip, and layers that a projection can stand for; parameters and MACs are what that saves.';
export const KEPT_LAYERS_CAPTION = 'Layers that no projection can stand for, and why.';
export const GROUPS_CAPTION =
  'Units that can be removed, and the weights that lose a slice with each; parameters and MACs are of one unit.';
export const FIXED_CAPTION = 'What layers make and nothing can be removed from, with the node that needs it.';
