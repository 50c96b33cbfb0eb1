/** The rows of a compress report: planned models, layers, limits, answers. */
import type { Dataset } from '../../data/dataset.js';
import type { GivenModel } from '../../node/model-input.js';
import type { RunControl } from '../../progress.js';
import { dependenciesOf } from '../../pruning/step.js';
import type {
  ComparedAnswers,
  CompressedLayer,
  CompressionLimits,
  CompressReport,
  PlannedModel,
  Verification,
} from '../../report/report.js';
import { compareAnswers } from '../../runtime/class-agreement.js';
import type { Attempt } from './attempt.js';
import { fits, type CompressPlan } from './plan.js';
import type { CompressRun } from './run.js';
import { prunedRows } from '../prune/rows.js';
import { errorOf } from '../prune/study.js';
import { layerRows } from '../quantize/rows.js';
import type { Candidate } from '../../pipeline/candidates.js';
import { missed } from '../../pipeline/limits.js';
import { openCheckedModel, openSession, type Workspace } from '../workspace.js';

/** The gentlest cut first, and numbered so. @param attempts in their order @param chosen the one that is written; undefined while none is */
export function plannedRows(
  run: CompressRun,
  { rungs, candidates }: CompressPlan,
  attempts: readonly Pick<Attempt, 'candidate'>[] = [],
  chosen?: Pick<Attempt, 'candidate'>,
): PlannedModel[] {
  const ordered = rungs.toSorted((a, b) => b.share - a.share);
  const placeOf = ({ rung }: Candidate): number => ordered.findIndex(({ index }) => index === rung);
  return candidates
    .toSorted((a, b) => placeOf(a) - placeOf(b))
    .map((candidate) => {
      const rung = placeOf(candidate);
      const { cost } = ordered[rung]!;
      const { bits, bytes, timeRatio, quality } = candidate;
      const tried = attempts.findIndex((attempt) => attempt.candidate === candidate) + 1;
      return {
        ...{ rung, params: cost.params, bits, bytes, quality },
        ...(cost.macs !== undefined && { macs: Math.round(cost.macs) }),
        ...(timeRatio !== undefined && { speedup: 1 / timeRatio }),
        fits: fits(run, candidate),
        ...(tried > 0 && { tried }),
        chosen: candidate === chosen?.candidate,
      };
    });
}

/** What was asked for, beside what the chosen model reaches. */
export function limitsReached({ limits, workspace, study }: CompressRun, { figures }: Attempt): CompressionLimits {
  const open = new Set(missed(limits, figures));
  return {
    ...(limits.bytes !== undefined && {
      size: { requested: limits.bytes, achieved: figures.bytes!, met: !open.has('bytes') },
    }),
    ...(limits.timeRatio !== undefined && {
      speed: {
        ...{ requested: 1 / limits.timeRatio, achieved: 1 / figures.timeRatio!, met: !open.has('timeRatio') },
        batch: workspace.timedBatches.at(-1)!,
      },
    }),
    ...(limits.drop !== undefined && {
      drop: {
        ...{ metric: errorOf(study.quality).metric, requested: limits.drop },
        ...{ achieved: figures.drop!, met: !open.has('drop') },
      },
    }),
  };
}

/** Groups, branches and layers, before and after. */
export async function compressedRows(
  { workspace, study: { original } }: CompressRun,
  { rung, rounded }: Attempt,
): Promise<Pick<CompressReport, 'groups' | 'removed' | 'layers'>> {
  const { engine, feedsFor, fixedBatch } = workspace;
  const dependencies = await dependenciesOf(engine, original.model, feedsFor, fixedBatch);
  const rows = prunedRows(original, rung.state, dependencies, rung.divergences, fixedBatch ?? 1);
  const stored = new Map(
    (rounded ? layerRows(rounded.study, rounded.outcome, rounded.choice) : []).map((row) => [row.name, row]),
  );
  return {
    ...{ groups: rows.groups, removed: rows.removed },
    layers: rows.layers.map((layer): CompressedLayer => {
      const row = stored.get(layer.name);
      const isGone = layer.channels.after === 0;
      return {
        ...layer,
        ...(!isGone && { bits: row?.bits ?? 32, format: row?.format, execution: row?.execution ?? 'float' }),
        bytes: { before: 4 * layer.params.before, after: isGone ? 0 : (row?.bytes ?? 4 * layer.params.after) },
      };
    }),
  };
}

export function verificationOf({ rung, rounded }: Attempt): Verification {
  const cut = {
    name: 'every cut model computes what the model before it computes with zeros',
    passed: true,
    detail: `largest relative difference ${rung.difference.toExponential(1)}`,
  };
  const own = rounded?.verification;
  return { ...own, checks: [...(rung.index > 0 ? [cut] : []), ...(own?.checks ?? [])] };
}

/** Samples with the largest divergence that a report names. */
const WORST = 10;

/**
 * Answers of the written file beside the original's, in a second pass over TEST.
 * @returns undefined for models without class scores
 */
export async function comparedAnswers(
  { engine, opened, scores, batch }: Workspace,
  path: string,
  dataset: Dataset,
  control: RunControl,
): Promise<ComparedAnswers | undefined> {
  if (scores === undefined) return undefined;
  const written: GivenModel = await openCheckedModel(path, { signal: control.signal });
  const original = await openSession(engine, opened);
  const changed = await openSession(engine, written);
  try {
    const { classes, worst } = await compareAnswers(
      { ...{ original, changed, scores, batches: batch(dataset) }, samples: dataset.size, worst: WORST },
      control,
    );
    return {
      samples: dataset.size,
      classes: classes.map((row) => {
        const name = dataset.classNames?.[row.class];
        return { ...row, ...(name !== undefined && { name }) };
      }),
      worst: worst.map(({ changed: compressed, divergence, ...row }) => ({
        ...row,
        ...(Number.isFinite(divergence) && { divergence }),
        compressed,
      })),
    };
  } finally {
    await original.release();
    await changed.release();
  }
}
