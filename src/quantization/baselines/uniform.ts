/** Uniform quantization (round to nearest): the same width in every layer, one clipped scale per output channel. */
import { chooseQuantizers } from '../activation-range.js';
import type { QuantizationMethod } from '../method.js';
import { gatherStatistics } from '../statistics.js';
import { roundAll } from './round-all.js';

export const uniform: QuantizationMethod = {
  name: 'uniform',
  summary: 'the same width in every layer, rounded to nearest, packed weights',
  activations: 'static',
  async prepare(context) {
    const statistics = await gatherStatistics(context, { ranges: true, histograms: true, grams: false });
    const activations = chooseQuantizers(statistics.ranges, statistics.histograms);
    const params = context.layers.reduce((sum, layer) => sum + layer.params, 0);
    return {
      quantize({ codeBytes }) {
        // A fractional average cannot be uniform: the width below it keeps the budget.
        const bits = Math.max(
          1,
          Math.min(context.settings.maxBits, Math.floor((codeBytes * 8) / Math.max(params, 1) + 1e-9)),
        );
        return Promise.resolve({ ...roundAll(context, bits, true), activations });
      },
    };
  },
};
