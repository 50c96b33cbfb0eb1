/** The shape every data source takes once it is opened: indexed samples that come out as model-ready batches. */
import type { Feeds, HostTensor } from '../runtime/engine.js';

/** Some samples, ready to feed: one tensor per model input with the sample axis first. */
export interface Batch {
  readonly feeds: Feeds;
  /** Class index per sample, absent for data without labels. */
  readonly labels?: Int32Array;
  /** What outputs of the model should be, by their names: float32, the sample axis first. Absent for data without such arrays. */
  readonly targets?: Feeds;
  /** The samples without the noise that was added to them, where it was. */
  readonly clean?: HostTensor;
  /** Number of real samples. The tensors hold more rows only where a loader padded them to a fixed batch dimension. */
  readonly size: number;
}

/** An opened data source. Samples are read on demand: nothing proportional to `size` but labels and file names stays in memory. */
export interface Dataset {
  /** Where the samples come from, as messages show it. */
  readonly source: string;
  readonly size: number;
  /** Class index of every sample, absent for data without labels. */
  readonly labels?: Int32Array;
  /** Shape [samples, ...] of each array of targets, by the name of the output. */
  readonly targets?: Readonly<Record<string, readonly number[]>>;
  /** Name of each class, where the source has names (class folders). */
  readonly classNames?: readonly string[];
  /** Reads the samples at `indices`, in that order. Errors name the file and the sample. */
  read(indices: ArrayLike<number>): Promise<Batch>;
  close(): Promise<void>;
}

/** What a `--data` argument turned out to hold: one undivided dataset (`all`), or the splits its author made. */
export interface OpenedData {
  readonly kind: 'npz' | 'images' | 'idx' | 'noise';
  readonly all?: Dataset;
  readonly train?: Dataset;
  readonly val?: Dataset;
  readonly test?: Dataset;
  /** Harmless oddities the user should see once, such as files that were left out. */
  readonly notes: readonly string[];
  /** Closes every dataset in it. */
  close(): Promise<void>;
}
