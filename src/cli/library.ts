/** The library functions behind the commands, loaded when they are called: `--help` starts without the engine. */
import type { Library } from './library-types.js';

export const library: Library = {
  inspectModel: async (model, options) => (await import('../commands/inspect.js')).inspectModel(model, options),
  evaluateModels: async (models, options) => (await import('../commands/evaluate.js')).evaluateModels(models, options),
  profileModel: async (model, options) => (await import('../commands/profile.js')).profileModel(model, options),
  quantizeModel: async (model, options) =>
    (await import('../commands/quantize/quantize.js')).quantizeModel(model, options),
  pruneModel: async (model, options) => (await import('../commands/prune/prune.js')).pruneModel(model, options),
  runSweep: async (request, control) => (await import('../commands/sweep.js')).runSweep(request, control),
  helpSweep: async (request) => (await import('../commands/sweep.js')).helpSweep(request),
  compressModel: async (model, options) =>
    (await import('../commands/compress/compress.js')).compressModel(model, options),
  distillModel: async (student, options) =>
    (await import('../commands/distill/distill.js')).distillModel(student, options),
  trainModel: async (model, options) => (await import('../commands/train/train.js')).trainModel(model, options),
};
