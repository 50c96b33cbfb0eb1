/** What each site costs in answers: the divergence from the original's outputs of a model that was cut there alone. */
import type { ModelProto } from 'onnx-buf';
import { throwIfAborted } from '../errors.js';
import type { RunControl } from '../progress.js';
import { applyChoice, type Choosable } from './apply-choice.js';
import { NOTHING, type Site, type WidthSite } from './sites.js';

/** Divergence that a choice at one site adds. */
export interface SiteDamage {
  readonly site: Site;
  /** @param width units left; ignored for layers. 0 for all of them. */
  of(width: number): number;
}

/** Widths of a group that are measured; the ones between follow. */
const MEASURED = 3;

/**
 * Cuts at every site alone, at a few widths, and measures.
 * @param divergenceOf of a model's outputs from those of the original
 */
export async function measureDamage(
  base: Choosable,
  divergenceOf: (model: ModelProto) => Promise<number>,
  control: RunControl = {},
): Promise<SiteDamage[]> {
  const plans = base.sites.map((site) => ({ site, widths: site.kind === 'width' ? measuredWidths(site) : [0] }));
  const total = plans.reduce((sum, { widths }) => sum + widths.length, 1);
  let done = 0;
  const tell = (): void => control.onProgress?.({ stage: 'measure cuts', done, total });
  tell();
  const before = await divergenceOf(base.model);
  done++;
  const found: SiteDamage[] = [];
  for (const { site, widths } of plans) {
    const points: Point[] = [];
    for (const width of widths) {
      throwIfAborted(control.signal);
      const choice =
        site.kind === 'width'
          ? { ...NOTHING, widths: new Map([[site.group, width]]) }
          : { ...NOTHING, layers: new Set([site.unit.name]) };
      const divergence = await divergenceOf(applyChoice(base, choice).model);
      // A model that gives no numbers is the last one to choose.
      points.push({ width, damage: Number.isFinite(divergence) ? Math.max(divergence - before, LEAST) : Infinity });
      done++;
      tell();
    }
    found.push(
      site.kind === 'width' ? { site, of: curveThrough(site, points) } : { site, of: () => points[0]!.damage },
    );
  }
  return found;
}

/** Nothing is for free. */
const LEAST = 1e-9;

interface Point {
  readonly width: number;
  readonly damage: number;
}

function measuredWidths({ widths }: WidthSite): number[] {
  const lower = widths.slice(1);
  if (lower.length <= MEASURED) return [...lower];
  const at = Array.from({ length: MEASURED }, (_, i) => Math.round(((i + 1) * lower.length) / MEASURED) - 1);
  return [...new Set(at)].map((i) => lower[i]!);
}

/** Damage grows by about the same factor with every unit that goes: straight lines of its logarithm, never falling. */
function curveThrough({ widths }: WidthSite, points: readonly Point[]): (width: number) => number {
  const all = widths[0]!;
  let highest = 0;
  const rising = points.map(({ width, damage }) => ({ width, damage: (highest = Math.max(highest, damage)) }));
  return (width) => {
    if (width >= all) return 0;
    const below = rising.findIndex((point) => point.width <= width);
    const lower = rising[below < 0 ? rising.length - 1 : below]!;
    const upper = below > 0 ? rising[below - 1]! : undefined;
    // In front of the first one it falls with the square of what goes.
    if (!upper) return lower.damage * ((all - width) / (all - lower.width)) ** 2;
    if (lower.damage === Infinity) return upper.width === width ? upper.damage : Infinity;
    const share = (upper.width - width) / (upper.width - lower.width);
    return Math.exp((1 - share) * Math.log(upper.damage) + share * Math.log(lower.damage));
  };
}
