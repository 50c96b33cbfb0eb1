/** Static INT8: 8-bit weights per output channel, 8-bit activations with their minimum and maximum over CALIB. */
import { chooseQuantizers } from '../activation-range.js';
import type { QuantizationMethod } from '../method.js';
import { gatherStatistics } from '../statistics.js';
import { roundAll } from './round-all.js';

export const staticInt8: QuantizationMethod = {
  name: 'static-int8',
  summary: '8-bit weights, calibrated 8-bit activations (min-max)',
  activations: 'static',
  fixedBits: 8,
  async prepare(context) {
    const statistics = await gatherStatistics(context, { ranges: true, histograms: false, grams: false });
    const activations = chooseQuantizers(statistics.ranges, new Map());
    return {
      quantize: () =>
        Promise.resolve({ ...roundAll(context, Math.min(8, context.settings.maxBits), false), activations }),
    };
  },
};
