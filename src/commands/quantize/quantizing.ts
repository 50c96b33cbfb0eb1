/** From a prepared model to a verified file: what `quantize` and `compress` do with a quantization method. */
import type { ModelProto } from 'onnx-buf';
import { FlowCompressError } from '../../errors.js';
import type { RunControl } from '../../progress.js';
import type { DivergenceRecord } from '../../quantization/measure-divergence.js';
import type { PreparedMethod, QuantizationMethod, QuantizationOutcome } from '../../quantization/method.js';
import type { Verification } from '../../report/report.js';
import type { MachineCache } from '../../runtime/machine-cache.js';
import { saturates } from '../../runtime/saturation.js';
import { executionFor, type Execution, type ExecutionChoice } from './execution.js';
import { QUANTIZE_DEFAULTS, type QuantizeOptions } from './options.js';
import { quantizationContext, type PreparedStudy } from './study.js';
import type { RunClock } from '../run-info.js';
import { verifyFile } from './verify-file.js';
import type { Workspace } from '../workspace.js';

export interface QuantizerRequest {
  readonly workspace: Workspace;
  readonly study: PreparedStudy;
  readonly method: QuantizationMethod;
  readonly settings: QuantizeOptions;
  readonly clock: RunClock;
  /** Of a run that may be resumed. */
  readonly cache?: MachineCache | undefined;
  readonly divergences?: DivergenceRecord | undefined;
  readonly warn: (message: string) => unknown;
}

export interface Quantizer {
  readonly execution: Execution;
  /** Quantizes to any number of budgets. */
  readonly prepared: PreparedMethod;
}

/** Measures what does not depend on the budget. Errors as the method's. */
export async function openQuantizer(
  { workspace, study, method, settings, clock, cache, divergences, warn }: QuantizerRequest,
  control: RunControl,
): Promise<Quantizer> {
  const execution = executionFor(workspace, study, method, settings, { run: cache });
  const maxBits = await widestCodes(workspace, execution, settings.maxBits, warn);
  const methodSettings = {
    ...settings,
    maxBits,
    edgeBits: Math.min(settings.edgeBits, maxBits),
    minBits: settings.minBits ?? Math.min(QUANTIZE_DEFAULTS.minBits, maxBits),
  };
  const context = {
    ...quantizationContext(workspace, study, execution.quantizable, methodSettings, control, warn),
    divergences,
  };
  return { execution, prepared: await clock.stage('measure layers', () => method.prepare(context)) };
}

/** Integer kernels of some processors add products in 16 bits, which holds for 7-bit weights only. */
async function widestCodes(
  { engine }: Workspace,
  { quantizable }: Execution,
  maxBits: number,
  warn: (message: string) => unknown,
): Promise<number> {
  if (quantizable.size === 0 || maxBits < 8 || !(await saturates(engine))) return maxBits;
  warn('The int8 kernels of this processor saturate on 8-bit weights: the widest weights have 7 bits.');
  return 7;
}

/** Verifies the chosen execution; where the choice was free, float is what remains if int8 kernels compute something else. */
export async function verifyOrFallBack(
  workspace: Workspace,
  study: PreparedStudy,
  outcome: QuantizationOutcome,
  choice: ExecutionChoice,
  float: ExecutionChoice | undefined,
): Promise<{ choice: ExecutionChoice; model: ModelProto; verification: Verification }> {
  const model = choice.build(outcome);
  try {
    return { choice, model, verification: await verifyFile(workspace, study, outcome, choice, model) };
  } catch (error) {
    if (!float || choice.int8.size === 0 || !(error instanceof FlowCompressError) || error.code !== 'internal')
      throw error;
    const warnings = [`${error.message} The model executes in float instead.`];
    const plain = float.build(outcome);
    const verification = await verifyFile(workspace, study, outcome, float, plain);
    return { choice: { ...float, warnings }, model: plain, verification };
  }
}
