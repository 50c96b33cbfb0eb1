import fc from 'fast-check';
import { afterEach, describe, expect, it, vi } from 'vitest';
import type { Batch, Dataset } from '../data/dataset.js';
import { FlowCompressError, throwIfAborted } from '../errors.js';
import { copyVectors } from '../testing/tiny-training.js';
import { NO_AUGMENTATION } from './augment.js';
import type { LossTargets } from './measure-loss.js';
import { learningRateAt } from './schedule.js';
import type { Stepper, StepInput, TrainingVectors } from './stepper.js';
import {
  NOT_BEGUN,
  train,
  type FedBatch,
  type Judgement,
  type TrainerHooks,
  type TrainerOptions,
  type TrainingEvent,
  type TrainingOutcome,
  type TrainingProgress,
} from './trainer.js';

/** Sample i is the number i + 1. */
function numbers(size: number): Dataset {
  return {
    source: 'numbers',
    size,
    read: (indices) => {
      const data = Float32Array.from(indices, (i) => i + 1);
      return Promise.resolve({
        size: indices.length,
        labels: Int32Array.from(indices),
        feeds: { x: { type: 'float32', dims: [indices.length, 1], data } },
      });
    },
    close: () => Promise.resolve(),
  };
}

interface Recorded {
  /** The numbers and the rate of every step. */
  readonly steps: { readonly samples: number[]; readonly learningRate: number }[];
  readonly stepper: Stepper;
}

/** A stepper whose vectors depend on all that it was ever given, in that order; it changes them in place. */
function recorder(start?: TrainingVectors, done = 0, onStep?: (step: number) => void): Recorded {
  const vectors = start ?? {
    parameters: Float32Array.of(1, 2),
    buffers: new Float32Array(1),
    states: [new Float32Array(2)],
    average: new Float32Array(2),
  };
  const steps: Recorded['steps'] = [];
  let count = done;
  const stepper: Stepper = {
    vectors,
    get steps() {
      return count;
    },
    step(inputs, learningRate) {
      const samples = inputs.flatMap(({ feeds, target }) => [
        ...(feeds.x!.data as Float32Array),
        ...(target.data as Float32Array),
      ]);
      steps.push({ samples, learningRate });
      for (const sample of samples) {
        vectors.parameters[0] = 0.9 * vectors.parameters[0]! + learningRate * sample;
        vectors.buffers[0] = 0.5 * vectors.buffers[0]! + sample;
        vectors.states[0]![1] = Math.sin(vectors.states[0]![1]! + sample);
        vectors.average![0] = 0.3 * vectors.average![0]! + vectors.parameters[0];
      }
      onStep?.(++count);
      return Promise.resolve({
        loss: samples[0]! / 7,
        main: samples[0]! / 7,
        hints: [],
        observed: [],
        norm: 1,
        outputs: [],
      });
    },
    measure: () => Promise.reject(new Error('not asked for')),
    release: () => Promise.resolve(),
  };
  return { steps, stepper };
}

const OPTIONS: TrainerOptions = {
  ...{ schedule: 'constant', learningRate: 0.1, warmup: 0 },
  ...{ batchSize: 3, accumulate: 1, augment: NO_AUGMENTATION, seed: 5 },
  metric: { name: 'top1', lowerIsBetter: false },
};

/** The target of a batch is its input, times ten. */
const targets: TrainerHooks['targets'] = {
  from: 'samples',
  of({ feeds }) {
    const x = feeds.x!;
    return { target: { ...x, data: (x.data as Float32Array).map((v) => 10 * v) } };
  },
};

interface Run {
  readonly outcome: TrainingOutcome;
  readonly recorded: Recorded;
  readonly events: TrainingEvent[];
}

async function runWith(
  options: Partial<TrainerOptions>,
  { size = 10, scores = () => 0, onStep }: { size?: number; scores?: (n: number) => number; onStep?: () => void } = {},
): Promise<Run> {
  const recorded = recorder(undefined, 0, onStep);
  const events: TrainingEvent[] = [];
  let evaluations = 0;
  const outcome = await train(
    recorded.stepper,
    numbers(size),
    { ...OPTIONS, ...options },
    {
      targets,
      evaluate: () => Promise.resolve({ score: scores(evaluations++) }),
      onEvent: (event) => events.push(event),
    },
  );
  return { outcome, recorded, events };
}

afterEach(() => {
  vi.useRealTimers();
});

describe('train', () => {
  it('goes through the samples of every epoch once, in another order each time', async () => {
    const { outcome, recorded, events } = await runWith({ epochs: 4, batchSize: 2 });
    expect(outcome).toMatchObject({ stopped: 'epochs', progress: { epoch: 4, stepInEpoch: 0, steps: 20 } });
    const epochs = [0, 1, 2, 3].map((e) =>
      recorded.steps.slice(e * 5, e * 5 + 5).flatMap(({ samples }) => samples.filter((_, i) => i < 2)),
    );
    for (const epoch of epochs) expect([...epoch].sort((a, b) => a - b)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    expect(new Set(epochs.map((epoch) => epoch.join())).size).toBe(4);
    expect(events.filter(({ kind }) => kind === 'step').map(({ step }) => step)).toEqual(
      Array.from({ length: 20 }, (_, i) => i + 1),
    );
    expect(events.filter(({ kind }) => kind === 'evaluation').map(({ epoch, step }) => [epoch, step])).toEqual([
      [1, 5],
      [2, 10],
      [3, 15],
      [4, 20],
    ]);
  });

  it('leaves out what does not fill a step, and groups batches', async () => {
    const { outcome, recorded } = await runWith({ epochs: 2, accumulate: 2, batchSize: 2 });
    // 10 samples, 4 per step.
    expect(outcome.progress.steps).toBe(4);
    expect(recorded.steps.every(({ samples }) => samples.length === 8)).toBe(true);
  });

  it('gives the rate of the schedule at every step', async () => {
    const schedule = { schedule: 'cosine', learningRate: 0.3, warmup: 0.2 } as const;
    const { recorded } = await runWith({ ...schedule, epochs: 5 });
    expect(recorded.steps.map(({ learningRate }) => learningRate)).toEqual(
      Array.from({ length: 15 }, (_, i) => learningRateAt(i / 15, schedule)),
    );
  });

  it('stops at a number of steps, within an epoch too, after one more evaluation', async () => {
    const { outcome, events } = await runWith({ steps: 4, epochs: 9 });
    expect(outcome).toMatchObject({ stopped: 'steps', progress: { epoch: 1, stepInEpoch: 1, steps: 4 } });
    expect(events.filter(({ kind }) => kind === 'evaluation').map(({ step }) => step)).toEqual([3, 4]);
  });

  it('stops at the end of its time', async () => {
    vi.useFakeTimers({ toFake: ['performance'] });
    const onStep = (): void => {
      vi.advanceTimersByTime(1000);
    };
    const { outcome, recorded } = await runWith({ maxSeconds: 7, schedule: 'step' }, { onStep });
    expect(outcome).toMatchObject({ stopped: 'time', progress: { steps: 7, seconds: 7 } });
    // The schedule follows the time: half of it is over after 3.5 s, three quarters after 5.25 s.
    recorded.steps.forEach(({ learningRate }, i) => {
      expect(learningRate).toBeCloseTo(i < 4 ? 0.1 : i < 6 ? 0.01 : 0.001, 9);
    });
    const both = await runWith({ maxSeconds: 7, steps: 5 }, { onStep });
    expect(both.outcome.stopped).toBe('steps');
  });

  it('stops without progress and keeps the best vectors', async () => {
    const scores = [1, 3, 2, 3, 2.5, 9];
    const best: TrainingVectors[] = [];
    const { stepper } = recorder();
    let evaluations = 0;
    const outcome = await train(
      stepper,
      numbers(9),
      { ...OPTIONS, epochs: 50, patience: 3 },
      {
        targets,
        evaluate(vectors) {
          best.push(copyVectors(vectors));
          return Promise.resolve({ score: scores[evaluations++]! });
        },
      },
    );
    expect(outcome).toMatchObject({
      stopped: 'patience',
      progress: { epoch: 5, best: { score: 3, epoch: 2, step: 6 } },
    });
    expect(outcome.best).toEqual({ ...best[1], states: [] });
    expect(outcome.best.parameters).not.toEqual(stepper.vectors.parameters);
  });

  it('takes the lowest for the best where less is better, in the plateau schedule too', async () => {
    const metric = { name: 'loss', lowerIsBetter: true };
    const values = [3, 2, 2.5, 2.2, 2.1, 1, 9, 9];
    const { outcome, events, recorded } = await runWith(
      { epochs: 8, metric, schedule: 'plateau' },
      { scores: (n) => values[n]! },
    );
    expect(outcome.progress.best).toEqual({ score: 1, epoch: 6, step: 18 });
    const epochs = events.filter((event) => event.kind === 'evaluation');
    expect(epochs.map(({ best }) => best)).toEqual([true, true, false, false, false, true, false, false]);
    expect(epochs.every((event) => event.metric === 'loss')).toBe(true);
    // Three epochs without progress: the rate falls from the sixth on.
    expect([4, 5].map((epoch) => recorded.steps[3 * epoch]!.learningRate)).toEqual([0.1, 0.03]);
  });

  it('never takes NaN for the best score', async () => {
    const { outcome } = await runWith({ epochs: 3 }, { scores: (n) => [NaN, 0.5, NaN][n]! });
    expect(outcome.progress.best).toEqual({ score: 0.5, epoch: 2, step: 6 });
    const never = await runWith({ epochs: 5, patience: 2 }, { scores: () => NaN });
    expect(never.outcome).toMatchObject({ stopped: 'patience', progress: { epoch: 2, best: undefined } });
    expect(never.outcome.best.parameters).toEqual(never.recorded.stepper.vectors.parameters);
  });

  it('reports the mean loss of an epoch', async () => {
    const { events } = await runWith({ epochs: 2 });
    const [first, second] = [events.slice(0, 4), events.slice(4)];
    for (const part of [first, second]) {
      const losses = part.flatMap((event) => (event.kind === 'step' ? [event.loss] : []));
      expect(part[3]).toMatchObject({ kind: 'evaluation' });
      expect((part[3] as { loss: number }).loss).toBeCloseTo((losses[0]! + losses[1]! + losses[2]!) / 3, 9);
    }
  });

  it('mixes every sample with the one that faces it, and its target alike', async () => {
    const augment = { ...NO_AUGMENTATION, mixup: 1 };
    const plain = await runWith({ epochs: 3 });
    const mixed = await runWith({ epochs: 3, augment });
    const shares = plain.recorded.steps.map(({ samples }, i) => {
      const [a, , c] = samples as [number, number, number];
      const found = mixed.recorded.steps[i]!.samples;
      const share = (found[0]! - c) / (a - c);
      expect(share).toBeGreaterThanOrEqual(0);
      expect(share).toBeLessThanOrEqual(1);
      expect(found[2]).toBeCloseTo(share * c + (1 - share) * a, 4);
      found.slice(3).forEach((v, n) => {
        expect(v).toBeCloseTo(10 * found[n]!, 4);
      });
      return share;
    });
    expect(new Set(shares).size).toBe(9);
  });

  it('mixes the weights of samples as it mixes the samples', async () => {
    const { stepper } = recorder();
    const given: StepInput[] = [];
    const listening: Stepper = {
      ...stepper,
      step(inputs, learningRate) {
        given.push(...inputs);
        return stepper.step(inputs, learningRate);
      },
    };
    const of = ({ feeds: { x } }: Batch): LossTargets => ({ target: x!, weights: x! });
    const options = { ...OPTIONS, epochs: 2, augment: { ...NO_AUGMENTATION, mixup: 1 } };
    const evaluate = (): Promise<Judgement> => Promise.resolve({ score: 0 });
    await train(listening, numbers(9), options, { targets: { from: 'samples', of }, evaluate });
    expect(given).toHaveLength(6);
    for (const { feeds, weights } of given) expect(weights!.data).toEqual(feeds.x!.data);
  });

  it('asks for targets of the inputs as they are fed, mixed ones too', async () => {
    const { stepper, steps } = recorder();
    const of = ({ feeds: { x } }: FedBatch): Promise<LossTargets> =>
      Promise.resolve({ target: { ...x!, data: (x!.data as Float32Array).map((v) => v * v) } });
    const options = { ...OPTIONS, epochs: 2, augment: { ...NO_AUGMENTATION, mixup: 1 } };
    const evaluate = (): Promise<Judgement> => Promise.resolve({ score: 0 });
    await train(stepper, numbers(9), options, { targets: { from: 'inputs', of }, evaluate });
    expect(steps).toHaveLength(6);
    for (const { samples } of steps)
      samples.slice(3).forEach((v, n) => {
        expect(v).toBeCloseTo(samples[n]! ** 2, 3);
      });
  });

  it('evaluates after so many updates, across epochs, and at the end', async () => {
    const { events, outcome } = await runWith({ steps: 11, evaluateEvery: 4 }, { scores: (n) => n });
    const evaluations = events.filter((event) => event.kind === 'evaluation');
    expect(evaluations.map(({ step, epoch }) => [step, epoch])).toEqual([
      [4, 1],
      [8, 2],
      [11, 3],
    ]);
    const losses = events.flatMap((event) => (event.kind === 'step' ? [event.loss] : []));
    const mean = (part: number[]): number => part.reduce((a, b) => a + b, 0) / part.length;
    expect(evaluations.map(({ loss }) => loss)).toEqual(
      [losses.slice(0, 4), losses.slice(4, 8), losses.slice(8)].map((part) => expect.closeTo(mean(part), 9) as number),
    );
    expect(outcome.progress).toMatchObject({ best: { step: 11 }, unevaluated: 0, lossSum: 0 });
  });

  it('lets the parameters be put right before every update', async () => {
    const { stepper } = recorder();
    const seen: number[] = [];
    let before = Infinity;
    const adjust: TrainerHooks['adjust'] = (vectors, steps) => {
      seen.push(steps);
      if (steps === 4) before = vectors.parameters[0]!;
      if (steps >= 4) vectors.parameters = Float32Array.from(vectors.parameters, () => 0);
    };
    const evaluate = (): Promise<Judgement> => Promise.resolve({ score: 0 });
    await train(stepper, numbers(9), { ...OPTIONS, learningRate: 0, steps: 5 }, { targets, evaluate, adjust });
    expect(seen).toEqual([0, 1, 2, 3, 4]);
    expect(before).not.toBe(0);
    expect(stepper.vectors.parameters[0]).toBe(0);
  });

  it('keeps no vectors that were refused', async () => {
    const { stepper } = recorder();
    let n = 0;
    const evaluate = (): Promise<Judgement> => Promise.resolve({ score: ++n, refused: n !== 2 });
    const outcome = await train(stepper, numbers(9), { ...OPTIONS, epochs: 4 }, { targets, evaluate });
    expect(outcome.progress.best).toEqual({ score: 2, epoch: 2, step: 6 });
  });

  it('refuses to mix what is not float32', async () => {
    const data = numbers(6);
    const tokens: Dataset = {
      ...data,
      read: (indices) =>
        Promise.resolve({
          size: indices.length,
          feeds: {
            x: { type: 'int64', dims: [indices.length], data: BigInt64Array.from(indices as Int32Array, BigInt) },
          },
        }),
    };
    const options = { ...OPTIONS, epochs: 1, augment: { ...NO_AUGMENTATION, mixup: 1 } };
    const hooks: TrainerHooks = {
      targets: {
        from: 'samples',
        of: () => ({ target: { type: 'float32', dims: [3], data: new Float32Array(3) } }),
      },
      evaluate: () => Promise.resolve({ score: 0 }),
    };
    await expect(train(recorder().stepper, tokens, options, hooks)).rejects.toMatchObject({ code: 'unsupported' });
  });

  it('refuses less data than a step takes', async () => {
    await expect(runWith({ epochs: 1, batchSize: 4, accumulate: 3 })).rejects.toMatchObject({ code: 'bad-input' });
  });

  it('passes on the error of a step, without a checkpoint', async () => {
    const { stepper } = recorder();
    const checkpoint = vi.fn(() => Promise.resolve());
    const failing: Stepper = { ...stepper, step: () => Promise.reject(new FlowCompressError('bad-input', 'NaN')) };
    const hooks: TrainerHooks = { targets, evaluate: () => Promise.resolve({ score: 0 }), checkpoint };
    await expect(train(failing, numbers(9), { ...OPTIONS, epochs: 1 }, hooks)).rejects.toMatchObject({
      code: 'bad-input',
    });
    expect(checkpoint).not.toHaveBeenCalled();
  });
});

interface Kept {
  readonly progress: TrainingProgress;
  readonly vectors: TrainingVectors;
  readonly best: TrainingVectors | undefined;
}

/** Trains to the end, interrupted and resumed whenever `interrupts` says so; everything that was seen, in order. */
async function trainInterrupted(options: TrainerOptions, size: number, interrupts: (point: string) => boolean) {
  const steps: Recorded['steps'] = [];
  const epochs: unknown[] = [];
  let kept: Kept | undefined;
  for (let attempt = 0; attempt < 100; attempt++) {
    const controller = new AbortController();
    const { signal } = controller;
    const stopAt = (point: string): void => {
      if (interrupts(point)) controller.abort();
    };
    const recorded = recorder(kept && copyVectors(kept.vectors), kept?.progress.steps);
    try {
      const outcome = await train(
        recorded.stepper,
        numbers(size),
        options,
        {
          targets,
          evaluate(vectors) {
            stopAt(`evaluation ${String(vectors.parameters[0])}`);
            throwIfAborted(signal);
            return Promise.resolve({ score: Math.sin(100 * vectors.parameters[0]!) });
          },
          onEvent(event) {
            if (event.kind === 'step') stopAt(`step ${String(event.step)}`);
            else epochs.push({ ...event, seconds: 0 });
          },
          checkpoint(progress, vectors, best) {
            kept = structuredClone({ progress, vectors: copyVectors(vectors), best: best && copyVectors(best) });
            return Promise.resolve();
          },
        },
        { signal },
        kept,
      );
      steps.push(...recorded.steps);
      const { progress, best, stopped } = outcome;
      return {
        steps,
        epochs,
        vectors: recorded.stepper.vectors,
        best,
        stopped,
        progress: { ...progress, seconds: 0 },
        attempt,
      };
    } catch (error) {
      expect(error).toMatchObject({ code: 'aborted' });
      steps.push(...recorded.steps);
    }
  }
  throw new Error('it never ends');
}

describe('an interrupted training', () => {
  it('ends as if it had never been interrupted', async () => {
    const optionsOf = fc.record({
      batchSize: fc.integer({ min: 1, max: 3 }),
      accumulate: fc.integer({ min: 1, max: 2 }),
      schedule: fc.constantFrom('cosine' as const, 'plateau' as const),
      warmup: fc.constantFrom(0, 0.2),
      epochs: fc.integer({ min: 1, max: 6 }),
      steps: fc.option(fc.integer({ min: 1, max: 12 }), { nil: undefined }),
      evaluateEvery: fc.option(fc.integer({ min: 1, max: 7 }), { nil: undefined }),
      patience: fc.option(fc.integer({ min: 1, max: 3 }), { nil: undefined }),
      mixup: fc.constantFrom(0, 0.4),
      seed: fc.nat(99),
    });
    await fc.assert(
      fc.asyncProperty(
        optionsOf,
        fc.integer({ min: 6, max: 12 }),
        fc.func(fc.boolean()),
        async (given, size, choose) => {
          const options = { ...OPTIONS, ...given, augment: { ...NO_AUGMENTATION, mixup: given.mixup } };
          const whole = await trainInterrupted(options, size, () => false);
          const seen = new Set<string>();
          // Never twice at the same point.
          const once = (point: string): boolean => !seen.has(point) && Boolean(seen.add(point)) && choose(point);
          const pieces = await trainInterrupted(options, size, once);
          expect({ ...pieces, attempt: 0 }).toEqual(whole);
        },
      ),
      { numRuns: 150 },
    );
  });

  it('may stop at every single point', async () => {
    const options = { ...OPTIONS, epochs: 3, steps: 8 };
    const whole = await trainInterrupted(options, 10, () => false);
    const seen = new Set<string>();
    const pieces = await trainInterrupted(options, 10, (point) => !seen.has(point) && Boolean(seen.add(point)));
    // Eight steps, the last of which ends an epoch or all; three evaluations.
    expect(pieces.attempt).toBeGreaterThanOrEqual(8);
    expect({ ...pieces, attempt: 0 }).toEqual(whole);
  });

  it('goes on counting its time', async () => {
    vi.useFakeTimers({ toFake: ['performance'] });
    const { stepper } = recorder(undefined, 0, () => {
      vi.advanceTimersByTime(1000);
    });
    const progress = { ...NOT_BEGUN, seconds: 4 };
    const hooks: TrainerHooks = { targets, evaluate: () => Promise.resolve({ score: 0 }) };
    const outcome = await train(stepper, numbers(9), { ...OPTIONS, maxSeconds: 6 }, hooks, {}, { progress });
    expect(outcome.progress).toMatchObject({ steps: 2, seconds: 6 });
  });
});
