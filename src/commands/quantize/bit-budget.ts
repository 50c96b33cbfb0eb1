/** Bits and bytes of a quantization: what was asked for, and the outcome that meets it. */
import { FlowCompressError } from '../../errors.js';
import type { CodeBudget, PreparedMethod, QuantizationMethod, QuantizationOutcome } from '../../quantization/method.js';
import { codebookBytes, formatOf, storedBytes } from '../../quantization/format.js';
import type { QuantizedWeights } from '../../quantization/placement.js';
import { weightUnits } from '../../quantization/units.js';
import type { Execution } from './execution.js';
import { QUANTIZE_DEFAULTS, type QuantizeOptions } from './options.js';
import type { PreparedStudy } from './study.js';

export interface WantedBudget {
  readonly unit: 'bits' | 'bytes';
  readonly requested: number;
  readonly codes: CodeBudget;
  readonly params: number;
}

/**
 * Bytes of codes at an average width. Where the user set no lowest width and the average hardly leaves room above the
 * usual one, single layers go lower.
 */
export function codeBudget(study: PreparedStudy, bits: number, lowest: number | undefined): CodeBudget {
  const minBits = lowest ?? (bits < QUANTIZE_DEFAULTS.minBits + 0.25 ? 1 : QUANTIZE_DEFAULTS.minBits);
  return { codeBytes: Math.floor((quantizableParams(study) * bits) / 8 + 1e-6), minBits };
}

function quantizableParams({ layers }: PreparedStudy): number {
  return weightUnits(layers).reduce((sum, unit) => sum + unit.layer.params, 0);
}

export function budgetOf(
  settings: Pick<QuantizeOptions, 'bits' | 'maxSize' | 'minBits'>,
  study: PreparedStudy,
  method: QuantizationMethod,
): WantedBudget {
  const params = quantizableParams(study);
  if (settings.maxSize !== undefined) {
    const codes = { codeBytes: settings.maxSize, minBits: settings.minBits ?? QUANTIZE_DEFAULTS.minBits };
    return { unit: 'bytes', requested: settings.maxSize, codes, params };
  }
  const bits = method.fixedBits ?? settings.bits ?? QUANTIZE_DEFAULTS.bits;
  return { unit: 'bits', requested: bits, codes: codeBudget(study, bits, settings.minBits), params };
}

export interface FoundOutcome {
  readonly outcome: QuantizationOutcome;
  readonly met: boolean;
}

/** Tries of the size search; each one corrects the bytes that are not codes. */
const SIZE_TRIES = 4;

/** @throws FlowCompressError `infeasible` when the budget cannot be met, unless the nearest outcome will do */
export async function meetBudget(
  prepared: PreparedMethod,
  execution: Execution,
  wanted: WantedBudget,
  bestEffort: boolean,
): Promise<FoundOutcome> {
  if (wanted.unit === 'bits') {
    const outcome = await prepared.quantize({ ...wanted.codes, orSmallest: bestEffort });
    return { outcome, met: averageBits(outcome) <= wanted.requested + 1e-9 };
  }
  // Everything that is not codes hardly depends on the widths: it is learnt from a first build and corrected.
  let codeBytes = wanted.params / 2;
  let smallest: { outcome: QuantizationOutcome; bytes: number } | undefined;
  for (let i = 0; i < SIZE_TRIES; i++) {
    const outcome = await prepared.quantize({
      codeBytes: Math.max(0, codeBytes),
      minBits: wanted.codes.minBits,
      orSmallest: true,
      rough: i === 0,
    });
    const bytes = execution.largestFile(outcome);
    if (i > 0 && bytes <= wanted.requested) return { outcome, met: true };
    if (i > 0 && (!smallest || bytes < smallest.bytes)) smallest = { outcome, bytes };
    codeBytes = wanted.requested - (bytes - codeBytesOf(outcome)) - 16 * i;
  }
  if (bestEffort && smallest) return { outcome: smallest.outcome, met: false };
  throw new FlowCompressError(
    'infeasible',
    `The file cannot be made as small as ${String(wanted.requested)} bytes: the closest has ${String(smallest?.bytes ?? 0)} bytes.`,
    { hint: 'Raise --max-size, lower --min-bits, or write the closest with --best-effort.' },
  );
}

function distinctWeights(outcome: QuantizationOutcome): QuantizedWeights[] {
  return [...new Map([...outcome.weights.values()].map((w) => [w.codes, w])).values()];
}

function codeBytesOf(outcome: QuantizationOutcome): number {
  return distinctWeights(outcome).reduce((sum, { codes, grid }) => sum + storedBytes(codes.length, formatOf(grid)), 0);
}

/** Average width of the codes, with what codebooks take: a budget of as many bits has room for the same choice. */
export function averageBits(outcome: QuantizationOutcome): number {
  const all = distinctWeights(outcome);
  const params = all.reduce((sum, { codes }) => sum + codes.length, 0);
  const bits = all.reduce(
    (sum, { codes, grid }) => sum + codes.length * grid.bits + 8 * codebookBytes(formatOf(grid)),
    0,
  );
  return bits / Math.max(params, 1);
}

export function achieved(wanted: WantedBudget, found: FoundOutcome, bytes: number): { achieved: number; met: boolean } {
  if (wanted.unit === 'bytes') return { achieved: bytes, met: found.met && bytes <= wanted.requested };
  return { achieved: averageBits(found.outcome), met: found.met };
}
