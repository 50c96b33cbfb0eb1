/** The log of a training: a JSON line per step and evaluation, and TensorBoard scalars beside them. */
import { appendFileSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { trainingPointSchema } from '../report/report.js';
import type { TrainingEvent } from '../training/trainer.js';
import { tensorboardLog } from './tensorboard.js';

/** As it is logged: with the means of the terms of the loss, where there are several. */
const loggedPointSchema = trainingPointSchema.extend({ terms: z.record(z.string(), z.number()).optional() });
export type LoggedPoint = z.infer<typeof loggedPointSchema>;

export interface TrainingLog {
  /** The evaluations that an earlier, interrupted run logged. */
  readonly earlier: readonly LoggedPoint[];
  write(event: TrainingEvent): void;
  close(): void;
}

const FILE = 'metrics.jsonl';

const evaluationLine = z.object({ kind: z.literal('evaluation') });

/**
 * Without a folder nothing is kept. What cannot be written is lost: a log stops no training.
 * @param resumed go on with what is there already; else it is removed
 */
export function trainingLog(folder: string | undefined, resumed: boolean): TrainingLog {
  if (folder === undefined) return { earlier: [], write: () => undefined, close: () => undefined };
  const path = join(folder, FILE);
  const before = resumed ? textOf(path) : '';
  const board = tensorboardLog(join(folder, 'tensorboard'));
  // The last line may have been cut short.
  let lines: string[] = before === '' || before.endsWith('\n') ? [] : ['\n'];
  const quietly = (write: () => void): void => {
    try {
      write();
    } catch {
      // The report has the evaluations.
    }
  };
  const flush = (): void => {
    quietly(() => {
      mkdirSync(folder, { recursive: true });
      appendFileSync(path, lines.join(''));
    });
    lines = [];
  };
  if (!resumed)
    quietly(() => {
      rmSync(path, { force: true });
    });
  return {
    earlier: evaluationsIn(before),
    write(event) {
      lines.push(`${JSON.stringify({ time: new Date().toISOString(), ...event })}\n`);
      board.scalars(event.step, scalarsOf(event));
      if (event.kind === 'evaluation') flush();
    },
    close: flush,
  };
}

/** What an event says, under the names that every log of curves uses. */
export function scalarsOf(event: TrainingEvent): Record<string, number> {
  if (event.kind === 'evaluation') return { [`val/${event.metric}`]: event.score, 'train/epoch_loss': event.loss };
  const { loss, learningRate, gradientNorm, samplesPerSecond } = event;
  return {
    ...{ 'train/loss': loss, 'train/learning_rate': learningRate },
    ...{ 'train/gradient_norm': gradientNorm, 'train/samples_per_second': samplesPerSecond },
  };
}

function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

function evaluationsIn(text: string): LoggedPoint[] {
  // By step: what was done again after an interruption replaces what was logged before.
  const points = new Map<number, LoggedPoint>();
  for (const line of text.split('\n')) {
    try {
      const parsed: unknown = JSON.parse(line);
      evaluationLine.parse(parsed);
      // What else is in the line is left out.
      const point = loggedPointSchema.parse(parsed);
      points.set(point.step, point);
    } catch {
      // A line of another kind, or one that was cut short.
    }
  }
  return [...points.values()];
}
