/** What commands measure of the machine, and where they remember it. */
import { nodeMachineCache } from '../node/machine-cache.js';
import { machineKey } from '../node/profiler.js';
import type { RunControl } from '../progress.js';
import type { Engine } from '../runtime/engine.js';
import type { MachineCache } from '../runtime/machine-cache.js';
import { measuredForms } from '../training/conv-forms.js';
import type { TrainingGraphOptions } from '../training/training-graph.js';

/** Where measurements are remembered: times of conversions, choices between files, forms of gradients. */
export interface Caches {
  /** Of a run that may be resumed. */
  readonly run?: MachineCache | undefined;
  /** Of this machine; with `remeasure` nothing is read from it. */
  readonly machine?: MachineCache;
}

interface MeasuringSettings {
  readonly threads?: number | undefined;
  readonly remeasure: boolean;
}

/** What this run measured goes before what the machine remembers: a run that goes on must not choose again. */
export function cacheFor(
  { remeasure }: Pick<MeasuringSettings, 'remeasure'>,
  { run, machine = nodeMachineCache() }: Caches,
): MachineCache {
  return {
    read: async (key) => {
      const kept = await run?.read(key);
      if (kept !== undefined || remeasure) return kept;
      const known = await machine.read(key);
      if (known !== undefined) await run?.write(key, known);
      return known;
    },
    async write(key, text) {
      await run?.write(key, text);
      await machine.write(key, text);
    },
  };
}

/** Takes the forms of gradients that are the fastest here. */
export function formsByMeasuring(
  engine: Engine,
  settings: MeasuringSettings,
  caches: Caches,
  control: RunControl,
): NonNullable<TrainingGraphOptions['chooseForms']> {
  const machine = { key: machineKey(settings.threads), cache: cacheFor(settings, caches) };
  return (shapes) => measuredForms(engine, shapes, machine, control);
}
