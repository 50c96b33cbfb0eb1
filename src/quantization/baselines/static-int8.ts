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

/** Updates of a training that is not told how many. */
const QAT_STEPS = 1000;

/** Static INT8 whose codes, scales and biases go on learning as they are rounded (LSQ, Esser et al. 2020), from labels where there are some. */
export const int8Qat: QuantizationMethod = {
  ...staticInt8,
  name: 'int8-qat',
  summary: `static-int8 that trains as it is rounded (LSQ), from labels where there are any; ${String(QAT_STEPS)} updates without --recover`,
  learns: { steps: QAT_STEPS },
};
