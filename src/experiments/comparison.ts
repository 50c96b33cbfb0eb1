/** What `bench report` compares: the networks, and what is done to each of them once it is trained. The rows of its table are this list. */
import type { SweptCommand, TrialDescription, TrialOptions } from './trial.js';
import { METHOD, SEED, STUDENT } from './trial.js';

/** Architectures of the zoo. */
export const COMPARED_MODELS = ['simple-cnn', 'lenet5-enhanced', 'efficientnet-b0', 'resnet50'] as const;

export interface ComparedMethod {
  /** In tables and plots. */
  readonly name: string;
  /** How far it goes, where the list has it several times. */
  readonly goal?: string;
  readonly command: Exclude<SweptCommand, 'train' | 'evaluate'>;
  readonly options: TrialOptions;
  /** The option that says how long it learns: updates as all others that learn, or epochs as the original; absent where nothing does. */
  readonly learns?: 'steps' | 'recover' | 'epochs';
}

const percent = (share: number): string => `${String(Math.round(100 * share))} %`;
const SHARES = [0.3, 0.5, 0.7] as const;
const AT_EVERY_SHARE = (of: (share: number) => ComparedMethod): ComparedMethod[] => SHARES.map(of);

export const COMPARED_METHODS: readonly ComparedMethod[] = [
  { name: 'dynamic INT8', command: 'quantize', options: { method: 'dynamic-int8' } },
  { name: 'static INT8', command: 'quantize', options: { method: 'static-int8' } },
  { name: 'QAT INT8', command: 'quantize', options: { method: 'int8-qat' }, learns: 'recover' },
  { name: 'FAAQ', goal: '4 bits', command: 'quantize', options: { method: 'faaq', bits: 4 } },
  {
    name: 'FAAQ, learned',
    goal: '4 bits',
    command: 'quantize',
    options: { method: 'faaq', bits: 4 },
    learns: 'recover',
  },
  ...AT_EVERY_SHARE((share) => ({
    ...{ name: 'weights pruned', goal: percent(share), command: 'prune', learns: 'steps' },
    options: { method: 'magnitude', sparsity: share },
  })),
  ...AT_EVERY_SHARE((share) => ({
    ...{ name: 'filters pruned', goal: percent(share), command: 'prune', learns: 'steps' },
    options: { method: 'l1', reduce: share },
  })),
  ...AT_EVERY_SHARE((share) => ({
    ...{ name: 'IDAP++', goal: percent(share), command: 'prune', learns: 'steps' },
    options: { method: 'idap', reduce: share },
  })),
  {
    // As long as the original: the student begins with new weights.
    ...{ name: 'FAD', goal: 'half the width', command: 'distill', learns: 'epochs' },
    options: { method: 'fad', [STUDENT]: 'teacher', width: 0.5 },
  },
  ...[8, 16].map((ratio): ComparedMethod => ({
    ...{ name: 'Flow Compress', goal: `${String(ratio)}x smaller`, command: 'compress', learns: 'steps' },
    // The nearest file where the limit is out of reach: the table says how small it is.
    options: { method: 'flow-compress', 'size-ratio': ratio, 'best-effort': true },
  })),
];

/** What the user says about a comparison. */
export interface ComparisonSettings {
  readonly models: readonly string[];
  readonly seeds: readonly number[];
  /** Passes over TRAIN of the originals. */
  readonly epochs: number;
  /** Updates of everything else that learns. */
  readonly steps: number;
  /** Of the images that the networks are built for. */
  readonly inputSize: number;
  readonly channels: number;
  /** Random changes of the images, wherever something learns. */
  readonly augment?: readonly string[];
  /** Of every trial: data and how it is read. */
  readonly common: TrialOptions;
}

/** One command of a comparison; all but the first take the models of the first. */
export interface ComparisonPhase {
  readonly name: string;
  readonly command: SweptCommand;
  readonly from: readonly string[];
  readonly descriptions: readonly TrialDescription[];
}

const ORIGINALS = 'train';

/** The originals are trained first; then every method is applied to each of them. */
export function comparisonPhases(settings: ComparisonSettings): ComparisonPhase[] {
  const { models, seeds, epochs, inputSize, channels, common } = settings;
  const changes: TrialOptions = settings.augment ? { augment: settings.augment } : {};
  const originals = models.flatMap((model) =>
    seeds.map((seed): TrialDescription => ({
      models: [model],
      options: { ...common, ...changes, epochs, 'input-size': inputSize, channels, [SEED]: seed },
      labels: { [METHOD]: 'original' },
    })),
  );
  const long = { steps: { steps: settings.steps }, recover: { recover: settings.steps }, epochs: { epochs } };
  const described = ({ name, goal, options, learns }: ComparedMethod): TrialDescription => ({
    models: [],
    options: { ...common, ...options, ...(learns && { ...long[learns], ...changes }) },
    labels: { [METHOD]: name, ...(goal !== undefined && { goal }) },
  });
  const commands = [...new Set(COMPARED_METHODS.map(({ command }) => command))];
  return [
    { name: ORIGINALS, command: 'train', from: [], descriptions: originals },
    ...commands.map((command) => ({
      ...{ name: command, command, from: [ORIGINALS] },
      descriptions: COMPARED_METHODS.filter((method) => method.command === command).map(described),
    })),
  ];
}
