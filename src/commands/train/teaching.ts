/** A teacher at work in a training: what it says of every batch, and what becomes of that in the loss. */
import type { ModelProto } from 'onnx-buf';
import type { Batch, Dataset } from '../../data/dataset.js';
import { fitMaps } from '../../distillation/maps.js';
import type { Lesson, Notes, TaughtBatch } from '../../distillation/lesson.js';
import type { Answers } from '../../distillation/answers.js';
import type { FlowUnit } from '../../distillation/units.js';
import type { ChannelMap } from '../../flow/channel-map.js';
import type { RunControl } from '../../progress.js';
import type { Engine, Feeds, HostTensor } from '../../runtime/engine.js';
import type { TracedValues } from '../../runtime/trace.js';
import type { LossTargets } from '../../training/measure-loss.js';
import type { Parameter } from '../../training/parameters.js';
import type { HintInput, StepInput, Stepper, StepResult } from '../../training/stepper.js';
import type { FedBatch, Targets } from '../../training/trainer.js';
import type { Hint } from '../../training/training-graph.js';

export interface Teaching {
  /** The form of the student that trains, with the values that are compared. */
  readonly student: ModelProto;
  /** What learns beside it. */
  readonly parameters: readonly Parameter[];
  readonly hints: readonly Hint[];
  readonly observed: readonly string[];
  /** Epochs after which samples come again as they were; never when absent. */
  readonly rounds?: number;
  /** Where the teacher's answers take the place of labels. */
  readonly answering?: Targets;
  /** The same for samples as they are. */
  readonly targets?: (batch: Batch) => Promise<LossTargets>;
  /** Of the inputs that the student's form has beside its own, for a trial with so many samples. */
  trialFeeds(rows: number): Feeds;
  complete(input: StepInput, fed: FedBatch, student: StudentNow): Promise<StepInput>;
  onStep(result: StepResult): void;
  /** Means of the terms since the last call. */
  means(): Record<string, number>;
  notes(): Notes;
  restore(notes: Notes): void;
}

/** The student in the middle of its training. */
export interface StudentNow {
  readonly stepper: Stepper;
  /** In inference form. */
  current(): ModelProto;
}

export interface TeachingRequest {
  readonly engine: Engine;
  readonly lesson: Lesson;
  /** Values by `names`: the logits first where they are the targets, then one per term. */
  readonly answers: Answers;
  /** Epochs after which samples come again as they were; never when absent. */
  readonly rounds: number | undefined;
  /** The student's units and dims, and samples that its maps are fitted on. */
  readonly units: readonly FlowUnit[];
  readonly shapes: TracedValues;
  readonly calib: Dataset;
  readonly batch: (dataset: Dataset) => AsyncIterable<Batch>;
  readonly maps: ReadonlyMap<string, ChannelMap>;
}

/**
 * Names of the teacher's values that a lesson asks for, in the order in which `teachingOf` reads them.
 * @param answers of the teacher, the main one first
 */
export function askedOf(lesson: Lesson, answers: readonly string[]): string[] {
  const first = lesson.main === 'answers' ? answers.slice(0, 1) : [];
  return [...first, ...[...lesson.terms, ...(lesson.heard ?? [])].flatMap(({ answer }) => answer ?? [])];
}

/** What a loss that reads no target is fed: no step takes it. */
const NOTHING: HostTensor = { type: 'float32', dims: [0], data: new Float32Array(0) };

/** In front of the names of terms in the notes. */
const SUMMED = 'sum of ';

export function teachingOf(request: TeachingRequest, control: RunControl): Teaching {
  const { engine, lesson, answers, units, shapes, calib } = request;
  const { terms, mapInputs, main, heard = [], control: factors } = lesson;
  let maps = new Map(request.maps);
  let mappedIn = -1;
  // What the teacher said of the parts of the batch that is under way, and these.
  let said: (readonly HostTensor[])[] = [];
  let taught: TaughtBatch[] = [];
  let sums = new Map<string, { sum: number; count: number }>();
  const first = main === 'answers' ? 1 : 0;
  /** By term and then as `heard`, with something where nothing is asked. */
  const placed = (values: readonly HostTensor[]): HostTensor[] => {
    let next = 0;
    return [...terms, ...heard].map(({ answer }) => (answer === undefined ? NOTHING : values[next++]!));
  };
  const mapFeeds = (): Feeds =>
    Object.fromEntries(
      mapInputs.flatMap(({ unit, inputs }) => {
        const { matrix, bias } = maps.get(unit)!;
        const rows = bias.length;
        return [
          [inputs.matrix, tensor([rows, matrix.length / rows], matrix)],
          [inputs.bias, tensor([rows, 1], bias)],
        ];
      }),
    );
  const heardFeeds = (tensorOf: (index: number, size: number) => HostTensor): Feeds =>
    Object.fromEntries(
      heard.flatMap(({ input }, i) => (input ? [[input.name, tensorOf(terms.length + i, input.size)]] : [])),
    );
  const add = (name: string, value: number): void => {
    const known = sums.get(name) ?? { sum: 0, count: 0 };
    sums.set(name, { sum: known.sum + value, count: known.count + 1 });
  };
  const hintTargets = (values: readonly HostTensor[], batch: TaughtBatch): HostTensor[] =>
    terms.map(({ prepare }, i) => prepare?.(values[i]!, batch) ?? values[i]!);
  return {
    student: lesson.student,
    parameters: lesson.parameters,
    hints: terms.map(({ hint }) => hint),
    observed: lesson.observed,
    ...(request.rounds !== undefined && { rounds: request.rounds }),
    ...(main === 'answers' && {
      answering: { from: 'inputs', of: async (fed) => ({ target: (await answers.of(fed))[0]! }) },
      targets: async ({ feeds, size }) => {
        const everyone = Int32Array.from({ length: size }, (_, i) => i);
        // Samples of VAL are not among those that answers are kept for.
        return { target: (await answers.of({ feeds, indices: everyone, round: -1, epoch: 0, share: 1 }))[0]! };
      },
    }),
    trialFeeds: (rows) => ({
      ...mapFeeds(),
      ...heardFeeds((_, size) => tensor([rows, size], new Float32Array(rows * size))),
    }),
    async complete(input, fed, { stepper, current }) {
      if (mapInputs.length > 0 && fed.epoch !== mappedIn) {
        if (mappedIn >= 0 || fed.epoch > 0) {
          const fitted = await fitMaps(
            { engine, model: current(), shapes, units, batches: () => request.batch(calib), samples: calib.size },
            { ...(control.signal && { signal: control.signal }) },
          );
          maps = new Map([...maps, ...fitted]);
        }
        mappedIn = fed.epoch;
      }
      const asked = placed((await answers.of(fed)).slice(first));
      said.push(asked);
      const part = { target: input.target, indices: fed.indices };
      taught.push(part);
      const targets = hintTargets(asked, part);
      const complete = (by: { readonly main: number; readonly terms: readonly number[] }): StepInput => ({
        ...input,
        feeds: { ...input.feeds, ...mapFeeds(), ...heardFeeds((index) => asked[index]!) },
        factor: by.main,
        hints: targets.map((target, i): HintInput => ({ target, factor: by.terms[i]! })),
      });
      const probes = said.length === 1 ? factors.probes?.(stepper.steps) : undefined;
      if (probes) {
        const [task, part] = [
          await stepper.measure([complete(probes.task)]),
          await stepper.measure([complete(probes.part)]),
        ];
        factors.balance?.(task.norm, part.norm);
      }
      return complete(factors.factors(fed.share));
    },
    onStep(result) {
      factors.observe?.(result, said, taught);
      [said, taught] = [[], []];
      add(main, result.main);
      result.hints.forEach((loss, i) => {
        add(terms[i]!.name, loss);
      });
    },
    means() {
      const found = Object.fromEntries([...sums].map(([name, { sum, count }]) => [name, sum / count]));
      sums = new Map();
      return found;
    },
    notes: () => ({
      ...factors.notes?.(),
      ...(mapInputs.length > 0 && { mapped: [mappedIn] }),
      ...Object.fromEntries([...sums].map(([name, { sum, count }]) => [`${SUMMED}${name}`, [sum, count]])),
      ...Object.fromEntries(
        mapInputs.flatMap(({ unit }) => {
          const { matrix, bias } = maps.get(unit)!;
          return [
            [`map ${unit}`, matrix],
            [`map bias ${unit}`, bias],
          ];
        }),
      ),
    }),
    restore(notes) {
      factors.restore?.(notes);
      mappedIn = notes.mapped?.[0] ?? mappedIn;
      for (const [name, [sum = 0, count = 0]] of Object.entries(notes))
        if (name.startsWith(SUMMED)) sums.set(name.slice(SUMMED.length), { sum, count });
      for (const { unit } of mapInputs) {
        const [matrix, bias] = [notes[`map ${unit}`], notes[`map bias ${unit}`]];
        if (matrix && bias) maps.set(unit, { matrix: Float32Array.from(matrix), bias: Float32Array.from(bias) });
      }
    },
  };
}

function tensor(dims: readonly number[], data: Float32Array): HostTensor {
  return { type: 'float32', dims, data };
}
