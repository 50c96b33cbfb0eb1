/** Brings a model into the one form that compression works on, by rewrites that must not change what it computes. */
import type { ModelProto } from 'onnx-buf';
import { FlowCompressError, messageOf, throwIfAborted } from '../errors.js';
import { rewrite } from '../onnx/graph.js';
import { collapseShapes } from '../onnx/passes/collapse-shapes.js';
import { dropRepeatedRelu } from '../onnx/passes/drop-repeated-relu.js';
import { foldBatchNorm } from '../onnx/passes/fold-batch-norm.js';
import { inlineConstants } from '../onnx/passes/inline-constants.js';
import { shuffleToGather } from '../onnx/passes/shuffle-to-gather.js';
import { upgradeOpset } from '../onnx/passes/upgrade-opset.js';
import type { Engine, Feeds, HostTensor } from '../runtime/engine.js';
import { runOnce } from '../runtime/run-once.js';
import { isFloat, numbersOf } from '../runtime/scores.js';
import { traceDims } from '../runtime/trace.js';

interface PassContext {
  readonly engine: Engine;
  /** Feeds of that many real samples. */
  readonly feedsFor: (rows: number) => Feeds;
  /** Rows that any model takes: several of them, where it does not insist on a number. */
  readonly rows: number;
}

export interface PreparationPass {
  readonly name: string;
  readonly run: (model: ModelProto, context: PassContext) => ModelProto | Promise<ModelProto>;
}

const CURRENT_OPSET: PreparationPass = { name: 'upgrade-opset', run: (model) => rewrite(model, upgradeOpset) };
const INLINE: PreparationPass = { name: 'inline-constants', run: (model) => rewrite(model, inlineConstants) };
const COLLAPSE: PreparationPass = {
  name: 'collapse-shapes',
  run: (model, { engine, feedsFor }) => collapseShapes(engine, model, feedsFor),
};

const FOLD: PreparationPass = { name: 'fold-batch-norm', run: (model) => rewrite(model, foldBatchNorm) };
const REPEATED: PreparationPass = { name: 'drop-repeated-relu', run: (model) => rewrite(model, dropRepeatedRelu) };
const SHUFFLE: PreparationPass = {
  name: 'shuffle-to-gather',
  run: async (model, { engine, feedsFor, rows }) => {
    const shapes = await traceDims(engine, model, feedsFor(rows));
    return rewrite(model, (graph) => {
      shuffleToGather(graph, shapes);
    });
  },
};

/** In this order: each one makes the graph plainer for the next. */
export const PREPARATION: readonly PreparationPass[] = [CURRENT_OPSET, INLINE, FOLD, COLLAPSE, REPEATED];

/** The form in which dependency groups are looked for: the layers stay as they are. */
export const PRUNABLE_FORM: readonly PreparationPass[] = [CURRENT_OPSET, INLINE, COLLAPSE, SHUFFLE];

/** The form that is pruned. */
export const PRUNED_FORM: readonly PreparationPass[] = [CURRENT_OPSET, INLINE, FOLD, COLLAPSE, SHUFFLE];

export interface PreparedModel {
  readonly model: ModelProto;
  /** Names of the passes behind it. */
  readonly applied: readonly string[];
  /** One sentence per pass that was left out. */
  readonly warnings: readonly string[];
}

export interface PreparationOptions {
  /** Rows that the model insists on. */
  readonly fixedBatch?: number;
  readonly signal?: AbortSignal;
  readonly passes?: readonly PreparationPass[];
}

/** Largest difference that rewrites may make, relative to the largest absolute value of an output. */
const TOLERANCE = 1e-4;
const CHECKED_ROWS = 4;

/**
 * Applies the passes and compares the outputs with the original's on a few real samples. When they differ, the passes are
 * gone through one by one, and each that changes the outputs or fails is left out with a warning.
 * @param feedsFor feeds of that many real samples
 * @throws FlowCompressError `bad-input` when the original itself does not run; `aborted`
 */
export async function prepareModel(
  engine: Engine,
  model: ModelProto,
  feedsFor: (rows: number) => Feeds,
  options: PreparationOptions = {},
): Promise<PreparedModel> {
  const { fixedBatch, signal, passes = PREPARATION } = options;
  const rows = fixedBatch ?? CHECKED_ROWS;
  const feeds = feedsFor(rows);
  const expected = await runOnce(engine, model, feeds);
  const context: PassContext = { engine, feedsFor, rows };
  const problemOf = async (candidate: ModelProto): Promise<string | undefined> =>
    candidate === model ? undefined : firstDifference(expected, await runOnce(engine, candidate, feeds));

  const whole = await attempt(async () => {
    let current = model;
    for (const pass of passes) {
      throwIfAborted(signal);
      current = await pass.run(current, context);
    }
    return { model: current, problem: await problemOf(current) };
  });
  if (whole.done && whole.value.problem === undefined) {
    return { model: whole.value.model, applied: passes.map((pass) => pass.name), warnings: [] };
  }

  let current = model;
  const applied: string[] = [];
  const warnings: string[] = [];
  for (const pass of passes) {
    throwIfAborted(signal);
    const step = await attempt(async () => {
      const next = await pass.run(current, context);
      return { model: next, problem: await problemOf(next) };
    });
    const problem = step.done ? step.value.problem : step.problem;
    if (step.done && problem === undefined) {
      current = step.value.model;
      applied.push(pass.name);
    } else {
      warnings.push(
        `The model could not be simplified by ${pass.name} and goes on without it: ${problem ?? 'unknown reason'}`,
      );
    }
  }
  return { model: current, applied, warnings };
}

type Attempt<T> = { readonly done: true; readonly value: T } | { readonly done: false; readonly problem: string };

async function attempt<T>(work: () => Promise<T>): Promise<Attempt<T>> {
  try {
    return { done: true, value: await work() };
  } catch (error) {
    if (error instanceof FlowCompressError && error.code === 'aborted') throw error;
    return { done: false, problem: messageOf(error) };
  }
}

type Outputs = Readonly<Record<string, HostTensor>>;

/** Says where the outputs differ by more than TOLERANCE; undefined when they agree. */
export function firstDifference(expected: Outputs, found: Outputs): string | undefined {
  for (const [name, reference] of Object.entries(expected)) {
    const own = found[name];
    if (own === undefined) return `output ${name} is gone.`;
    if (own.type !== reference.type || own.dims.join() !== reference.dims.join()) {
      return `output ${name} became ${own.type} [${own.dims.join(', ')}] instead of ${reference.type} [${reference.dims.join(', ')}].`;
    }
    const a = numbersOf(reference);
    const b = numbersOf(own);
    let largest = 0;
    for (let i = 0; i < a.length; i++) {
      const size = Math.abs(Number(a[i]));
      if (Number.isFinite(size) && size > largest) largest = size;
    }
    const limit = isFloat(reference) ? TOLERANCE * largest : 0;
    for (let i = 0; i < a.length; i++) {
      if (Object.is(a[i], b[i]) || a[i] === b[i]) continue;
      const difference = Math.abs(Number(a[i]) - Number(b[i]));
      if (difference <= limit) continue;
      return `output ${name} differs by ${difference.toPrecision(3)}, its largest value being ${largest.toPrecision(3)}.`;
    }
  }
  return undefined;
}
