/** What a quantization method gets and gives back; the registry of methods is in registry.ts. */
import type { ModelProto } from 'onnx-buf';
import type { Batch } from '../data/dataset.js';
import type { WeightLayer } from '../onnx/layers.js';
import type { RunControl } from '../progress.js';
import type { Probe } from '../runtime/probe.js';
import type { Engine } from '../runtime/engine.js';
import type { TracedValues } from '../runtime/trace.js';
import type { ActivationQuantizer } from './activation-range.js';
import type { StorageFormat } from './format.js';
import type { QuantizedWeights } from './placement.js';
import type { DivergenceRecord } from './measure-divergence.js';
import type { Agreement, GradientTerm, SensitivityInput, SensitivityMode } from './sensitivity.js';

/** What the user asked for, beside the budget, with all defaults filled in. */
export interface QuantizationSettings {
  readonly minBits: number;
  readonly maxBits: number;
  readonly edgeBits: number;
  readonly attentionBits: number;
  /** Lowest width of layers with a gradient far above the median, with the flow sensitivity. */
  readonly gradientBits: number;
  /** `auto` takes the flow sensitivity when it agrees with the measured one, else the measured one. */
  readonly sensitivity: 'auto' | 'flow' | 'measured';
  readonly sensitivityMode: SensitivityMode;
  readonly gradientTerm: GradientTerm;
  readonly rounding: 'nearest' | 'compensated';
  /** How a layer may be stored, where the method chooses. */
  readonly formats: readonly StorageFormat['kind'][];
  readonly probeSamples: number;
  readonly seed: number;
}

export interface QuantizationContext {
  readonly engine: Engine;
  /** Prepared model: opset >= 13, constants inlined, batch norms folded. */
  readonly model: ModelProto;
  readonly layers: readonly WeightLayer[];
  readonly shapes: TracedValues;
  /** Names of the values that int8 execution would quantize. */
  readonly quantizable: ReadonlySet<string>;
  /** Rows that every run must have; undefined when any number will do. */
  readonly fixedBatch: number | undefined;
  /** A fresh pass over CALIB. */
  readonly calibration: (pass?: CalibrationPass) => AsyncIterable<Batch>;
  readonly calibrationSamples: number;
  /** Name of the output with one score per class, if the model has one. */
  readonly scores: string | undefined;
  /** The first `n` CALIB samples as one batch, or fewer where memory or the time of that many runs forbids. */
  readonly probeBatch: (n: number, runs: number) => Promise<Batch>;
  /** Probes of the information flow that ride on the calibration pass, and what they found by layer name. */
  readonly flow: () => FlowSource;
  /** Names of the layers that project into or out of attention. */
  readonly attentionLayers: ReadonlySet<string>;
  readonly settings: QuantizationSettings;
  readonly control: RunControl;
  readonly warn: (message: string) => void;
  /** Divergences that need not be measured again, and where new ones are kept. */
  readonly divergences?: DivergenceRecord | undefined;
}

export interface CalibrationPass {
  /** Samples from the start of CALIB; all of them when absent. */
  readonly limit?: number;
  /** Fewer, larger batches are faster. */
  readonly wide?: boolean;
  /** Rows of a batch, where the model leaves them open. */
  readonly rows?: number;
}

export interface FlowSource {
  readonly probes: readonly Probe[];
  /** Call after the pass. */
  result(): ReadonlyMap<string, SensitivityInput>;
}

/** Per-layer findings for the report. */
export interface LayerFinding {
  readonly name: string;
  readonly bits: number;
  readonly sensitivity?: number;
  readonly flow?: number;
  /** Mean norm of the loss gradient in the weights. */
  readonly gradient?: number;
  readonly flowChange?: number;
  /** Measured divergence by width. */
  readonly divergence?: Readonly<Record<string, number>>;
  /** Signal-to-noise ratio of the layer's output under its rounded weights, dB. */
  readonly sqnrDb?: number;
}

export interface QuantizationOutcome {
  readonly weights: Map<string, QuantizedWeights>;
  readonly activations: Map<string, ActivationQuantizer>;
  readonly findings: LayerFinding[];
  /** Of the flow sensitivity with the measured one, if both exist. */
  readonly agreement?: Agreement;
}

export interface QuantizationMethod {
  readonly name: string;
  readonly summary: string;
  /**
   * How activations are treated: `static` from calibration ranges, `dynamic` per run, `none` (weights only, float
   * execution).
   */
  readonly activations: 'static' | 'dynamic' | 'none';
  /** The width of a method that has one and no budget. */
  readonly fixedBits?: number;
  /** Of a method that trains what it rounded: updates when none are asked for. */
  readonly learns?: { readonly steps: number };
  /** Measures what does not depend on the budget. The result quantizes to any number of budgets. */
  prepare(context: QuantizationContext): Promise<PreparedMethod>;
}

/** Bytes that all weight codes together may take. */
export interface CodeBudget {
  readonly codeBytes: number;
  /** Lowest width of any layer, when the budget asks for less than the settings' own. */
  readonly minBits?: number;
  /** Any choice of widths will do: only the bytes beside the codes are wanted. */
  readonly rough?: boolean;
  /** Returns the smallest outcome instead of refusing a budget that the floors do not fit. */
  readonly orSmallest?: boolean;
}

export interface PreparedMethod {
  /** @throws FlowCompressError `infeasible` naming the floors that bind; `aborted` */
  quantize(budget: CodeBudget): Promise<QuantizationOutcome>;
}
