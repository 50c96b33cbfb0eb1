/** The library functions that the commands call, as types, so that tests can put in functions of their own. */
import type { CompressOptions } from '../commands/compress/options.js';
import type { DistillOptions } from '../commands/distill/options.js';
import type { EvaluateOptions } from '../commands/evaluate-options.js';
import type { InspectOptions } from '../commands/inspect-options.js';
import type { ProfileOptions } from '../commands/profile-options.js';
import type { PruneOptions } from '../commands/prune/options.js';
import type { QuantizeOptions } from '../commands/quantize/options.js';
import type { TrainOptions } from '../commands/train/options.js';
import type { SweepRequest, WorkerReport, WorkerRequest } from '../commands/sweep.js';
import type { RunControl } from '../progress.js';
import type {
  BenchReport,
  CompressReport,
  DistillReport,
  EvaluateReport,
  InspectReport,
  ProfileReport,
  PruneReport,
  QuantizeReport,
  TrainReport,
} from '../report/report.js';

export interface Library {
  readonly runSweep: (request: SweepRequest, control: RunControl) => Promise<{ report: BenchReport }>;
  readonly helpSweep: (request: WorkerRequest) => Promise<{ report: WorkerReport }>;
  readonly inspectModel: (model: string, options: InspectOptions) => Promise<{ report: InspectReport }>;
  readonly evaluateModels: (models: string[], options: EvaluateOptions) => Promise<{ report: EvaluateReport }>;
  readonly profileModel: (model: string, options: ProfileOptions) => Promise<{ report: ProfileReport }>;
  /** Writes `options.output` itself: whole or not at all. */
  readonly quantizeModel: (model: string, options: QuantizeOptions) => Promise<{ report: QuantizeReport }>;
  /** Writes `options.output` itself: whole or not at all. */
  readonly pruneModel: (model: string, options: PruneOptions) => Promise<{ report: PruneReport }>;
  /** Writes `options.output` itself: whole or not at all. */
  readonly compressModel: (model: string, options: CompressOptions) => Promise<{ report: CompressReport }>;
  /** Writes `options.output` itself: whole or not at all. */
  readonly distillModel: (student: string, options: DistillOptions) => Promise<{ report: DistillReport }>;
  /** Writes `options.output` itself: whole or not at all. */
  readonly trainModel: (model: string, options: TrainOptions) => Promise<{ report: TrainReport }>;
}
