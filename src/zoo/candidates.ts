/** Architectures of the zoo that could be the student of a network: what suits its images and classes. */
import { FlowCompressError } from '../errors.js';
import type { Architecture } from './architecture.js';
import { countNetwork } from './build.js';
import type { ZooOptions } from './options.js';
import { findArchitecture } from './registry.js';

/** What a network is told apart by from outside. */
export interface ImageTask {
  readonly inputSize: number;
  readonly channels: number;
  readonly classes: number;
  /** Of a vision transformer: side of its patches in pixels, layers, and channels of a token. */
  readonly transformer?: { readonly patchSize: number; readonly depth: number; readonly channels: number } | undefined;
}

export interface ProposedStudent {
  /** The architecture and what is not as it has it by default: `resnet20, width 0.5`. */
  readonly name: string;
  readonly architecture: Architecture;
  readonly options: ZooOptions;
}

/** Sides up to this one are small images. */
const SMALL_SIDE = 64;
const WIDTHS = [0.5, 0.75, 1];
/** Names and widths. */
const FOR_SMALL_IMAGES: readonly (readonly [string, readonly number[]])[] = [
  ...[8, 14, 20, 32, 44, 56].map((layers) => [`resnet${String(layers)}`, WIDTHS] as const),
  ['lenet5', [1]],
  ['simple-cnn', [0.5, 1]],
  ['mobilenet-v2', [0.25, 0.5]],
  ['mobilenet-v3-small', [0.25, 0.5]],
  ['shufflenet-v2', [0.25, 0.5]],
];
const FOR_LARGE_IMAGES: readonly (readonly [string, readonly number[]])[] = [
  ['resnet18', [0.25, 0.5, 1]],
  ['resnet34', [0.5, 1]],
  ['mobilenet-v2', [0.35, 0.5, 0.75, 1]],
  ['mobilenet-v3-small', [0.5, 1]],
  ['mobilenet-v3-large', [0.75, 1]],
  ['shufflenet-v2', [0.5, 1]],
  ['efficientnet-b0', [0.5, 1]],
];
/** The smallest vision transformer of the zoo, and the channels of its tokens. */
const TRANSFORMER = ['vit-ti', 192] as const;

/** Those that can be built for the task, in the order of the list above; a transformer's at half its depth, half its width, or both. */
export function proposedStudents({ transformer, ...task }: ImageTask): ProposedStudent[] {
  const rows = task.inputSize <= SMALL_SIDE ? FOR_SMALL_IMAGES : FOR_LARGE_IMAGES;
  const built = rows.flatMap(([name, widths]) => widths.map((width) => proposed(name, { ...task, width })));
  const smaller = transformer
    ? [
        [2, 1],
        [1, 2],
        [2, 2],
      ].map(([shallower = 1, narrower = 1]) => {
        const { patchSize, depth, channels } = transformer;
        const width = channels / TRANSFORMER[1] / narrower;
        return proposed(TRANSFORMER[0], {
          ...{ ...task, patchSize, depth: Math.max(1, Math.round(depth / shallower)), width },
        });
      })
    : [];
  return [...smaller, ...built].filter((one) => one !== undefined);
}

/** Undefined where the architecture cannot have these options. */
function proposed(name: string, options: ZooOptions & { width: number }): ProposedStudent | undefined {
  const architecture = findArchitecture(name)!;
  try {
    countNetwork(architecture, options);
  } catch (error) {
    if (error instanceof FlowCompressError && error.code === 'bad-input') return undefined;
    throw error;
  }
  const { depth, width } = options;
  const changed = [
    ...(depth === undefined ? [] : [`depth ${String(depth)}`]),
    ...(width === 1 ? [] : [`width ${String(Number(width.toPrecision(3)))}`]),
  ];
  return { name: [name, ...changed].join(', '), architecture, options };
}
