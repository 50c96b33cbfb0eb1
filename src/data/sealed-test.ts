/**
 * The TEST split behind a seal: it can be handed around, but its samples come out only through `openTest`, once. Only the
 * code that evaluates for the report imports this file's `openTest`; no algorithm does (a test of the splits checks that).
 */
import { FlowCompressError } from '../errors.js';
import type { Dataset } from './dataset.js';

/** A TEST split that nobody has read yet: its size is all that can be seen. */
export interface SealedTest {
  readonly source: string;
  readonly size: number;
}

interface Sealed {
  readonly dataset: Dataset;
  timesOpened: number;
}

const vault = new WeakMap<SealedTest, Sealed>();

/** Seals a dataset. The caller must not keep it. */
export function sealTest(dataset: Dataset): SealedTest {
  const sealed: SealedTest = Object.freeze({ source: dataset.source, size: dataset.size });
  vault.set(sealed, { dataset, timesOpened: 0 });
  return sealed;
}

/**
 * The TEST split, for the report. All models of a report are evaluated on the one dataset this returns.
 * @throws FlowCompressError `internal` when it is opened a second time
 */
export function openTest(sealed: SealedTest): Dataset {
  const held = vault.get(sealed);
  if (!held) throw new FlowCompressError('internal', 'This is not a sealed TEST split.');
  held.timesOpened++;
  if (held.timesOpened > 1) {
    throw new FlowCompressError('internal', `The TEST split of ${sealed.source} was already read for a report.`, {
      hint: 'Evaluate every model of a report in one pass; make new splits for a new report.',
    });
  }
  return held.dataset;
}

/** The same samples in another form, sealed like them. Neither `change` nor what it returns may keep or read more than it needs. */
export async function resealed(
  sealed: SealedTest,
  change: (dataset: Dataset) => Promise<Dataset>,
): Promise<SealedTest> {
  const held = vault.get(sealed);
  if (!held) throw new FlowCompressError('internal', 'This is not a sealed TEST split.');
  return sealTest(await change(held.dataset));
}

/** How often `openTest` was called on it. */
export function timesOpened(sealed: SealedTest): number {
  return vault.get(sealed)?.timesOpened ?? 0;
}
