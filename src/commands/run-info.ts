/** What a report says about the run itself: duration, stages, peak memory, machine. */
import { cpus } from 'node:os';
import type { Engine } from '../runtime/engine.js';

export interface RunInfo {
  readonly seconds: number;
  readonly peakRssBytes: number;
  readonly stages: { name: string; seconds: number }[];
  readonly environment: { engine: string; node: string; cpu?: string };
}

export interface RunClock {
  /** Does the work and books its time under `name`; stages of one name add up. */
  readonly stage: <T>(name: string, work: () => Promise<T>) => Promise<T>;
  /** The figures up to now. */
  readonly info: (engine: Engine) => RunInfo;
}

/** Starts the clock of a run. */
export function startRun(): RunClock {
  const start = performance.now();
  const booked = new Map<string, number>();
  return {
    stage: async (name, work) => {
      const from = performance.now();
      try {
        return await work();
      } finally {
        booked.set(name, (booked.get(name) ?? 0) + (performance.now() - from) / 1000);
      }
    },
    info: (engine) => {
      const model = cpus().at(0)?.model.trim();
      return {
        seconds: (performance.now() - start) / 1000,
        // Kilobytes on every platform.
        peakRssBytes: process.resourceUsage().maxRSS * 1024,
        stages: [...booked].map(([name, seconds]) => ({ name, seconds })),
        environment: {
          engine: engine.version,
          node: process.version,
          ...(model && { cpu: model }),
        },
      };
    },
  };
}
