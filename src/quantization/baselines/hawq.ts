/**
 * HAWQ (V2 and V3: Dong et al. 2020, Yao et al. 2021): widths by Omega_l(b) = trace(H_l) / n_l ||Q_b(W_l) - W_l||^2 under exact bytes.
 * Q_b rounds to nearest, as published; ranges and the final rounding are those of FAAQ, so that only the widths differ.
 */
import { uniformCodes } from '../format.js';
import { meanTraces } from '../hessian-traces.js';
import type { QuantizationMethod } from '../method.js';
import { LayerRounder } from '../rounder.js';
import { leastDamage, openWidthStudy, roundedTo, widthChoices } from '../widths.js';

/** Least trace that counts, as a share of the largest: estimates around 0 may be negative. */
const LEAST_TRACE = 1e-4;

export const hawq: QuantizationMethod = {
  name: 'hawq',
  summary: 'per-layer bits by the mean trace of the Hessian, packed weights',
  activations: 'static',
  async prepare(context) {
    const study = await openWidthStudy(context);
    const { graph, units } = study;
    const traces = await meanTraces(graph, units, context);
    const largest = Math.max(...traces, Number.MIN_VALUE);
    const counted = traces.map((trace) => Math.max(trace, LEAST_TRACE * largest));
    const plain = new LayerRounder(graph, new Map(), 'nearest');
    const damage = (i: number, bits: number): number =>
      counted[i]! * plain.squaredError(units[i]!.layer, uniformCodes(bits));
    return {
      quantize: (budget) =>
        roundedTo(study, leastDamage(widthChoices(study, budget), budget, damage).map(uniformCodes), (i) => ({
          sensitivity: counted[i]! / largest,
        })),
    };
  },
};
