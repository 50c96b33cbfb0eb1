/** Which units are to go. */
import { FlowCompressError } from '../errors.js';
import type { Dependencies, DependencyGroup } from './groups.js';

/** Units of one group by their place in it. */
export interface GroupSelection {
  /** Place of the group in the list. */
  readonly group: number;
  readonly units: readonly number[];
}

export interface Selection {
  readonly dependencies: Dependencies;
  /** 1 for every class that goes. */
  readonly removed: Uint8Array;
}

/**
 * Units of any number of groups, to be removed at once.
 * @throws FlowCompressError `bad-input` for a group or unit that there is not, and for all units of a group
 */
export function selectUnits(dependencies: Dependencies, chosen: readonly GroupSelection[]): Selection {
  const removed = new Uint8Array(dependencies.units.classOf.length);
  for (const { group: index, units } of chosen) {
    const group = dependencies.groups[index] as DependencyGroup | undefined;
    if (!group) throw new FlowCompressError('bad-input', `There is no dependency group ${String(index)}.`);
    for (const unit of units) {
      const number = group.units[unit] as number | undefined;
      if (number === undefined) {
        throw new FlowCompressError('bad-input', `Group ${String(index)} has no unit ${String(unit)}.`, {
          node: nameOf(group),
          hint: `Its units are 0 to ${String(group.units.length - 1)}.`,
        });
      }
      removed[number] = 1;
    }
    if (group.units.every((unit) => removed[unit] === 1)) {
      throw new FlowCompressError('bad-input', `All ${String(group.units.length)} units of a group would be removed.`, {
        node: nameOf(group),
        hint: 'Leave one unit at least; whole layers are not removed this way.',
      });
    }
  }
  return { dependencies, removed };
}

function nameOf({ layers, members }: DependencyGroup): string {
  return layers[0] ?? members[0].initializer;
}
