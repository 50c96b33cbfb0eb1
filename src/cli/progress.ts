/** Progress on stderr: a bar with the time left on a terminal, a line now and then elsewhere, nothing with --quiet. */
import { SingleBar } from 'cli-progress';
import type { ProgressEvent, OnProgress } from '../progress.js';
import { formatSeconds, printable, truncateMiddle } from '../report/format.js';
import type { OutputStream } from './context.js';

export interface ProgressDisplay {
  readonly onProgress: OnProgress;
  /** Removes the bar; call it before anything else is printed. */
  readonly stop: () => void;
}

/** Milliseconds between lines when there is no terminal. */
const LINE_INTERVAL = 5000;

/** Chooses the display for a stream. `now` is a clock in milliseconds. */
export function createProgress(stream: OutputStream, options: { quiet: boolean; now?: () => number }): ProgressDisplay {
  if (options.quiet) return { onProgress: () => undefined, stop: () => undefined };
  return stream.isTTY === true ? barDisplay(stream) : lineDisplay(stream, options.now ?? Date.now);
}

function barDisplay(stream: OutputStream): ProgressDisplay {
  let bar: SingleBar | undefined;
  let stage: string | undefined;
  const stop = (): void => {
    bar?.stop();
    bar = undefined;
    stage = undefined;
  };
  return {
    stop,
    onProgress: (event) => {
      const payload = { detail: truncateMiddle(printable(event.detail ?? ''), 36) };
      if (bar === undefined || event.stage !== stage) {
        stop();
        stage = event.stage;
        bar = new SingleBar({
          format: `${printable(event.stage)} [{bar}] {percentage}%  {eta_formatted} left  {detail}`,
          stream,
          barsize: 24,
          barCompleteChar: '█',
          barIncompleteChar: '░',
          clearOnComplete: true,
          hideCursor: true,
          // Signals are handled in one place, main.ts.
          gracefulExit: false,
          etaBuffer: 20,
        });
        bar.start(Math.max(1, event.total), event.done, payload);
      } else {
        bar.setTotal(Math.max(1, event.total));
        bar.update(event.done, payload);
      }
    },
  };
}

function lineDisplay(stream: OutputStream, now: () => number): ProgressDisplay {
  let lastLine = now();
  let stage: { name: string; start: number; from: number } | undefined;
  return {
    stop: () => undefined,
    onProgress: (event) => {
      const time = now();
      if (stage === undefined || stage.name !== event.stage)
        stage = { name: event.stage, start: time, from: event.done };
      if (time - lastLine < LINE_INTERVAL) return;
      lastLine = time;
      stream.write(`${progressLine(event, time - stage.start, event.done - stage.from)}\n`);
    },
  };
}

/** `measure widths: 120/342 (35%), about 42 s left`; `worked` units took `elapsed` milliseconds. */
function progressLine(event: ProgressEvent, elapsed: number, worked: number): string {
  const share = event.total > 0 ? ` (${Math.floor((100 * event.done) / event.total)}%)` : '';
  const left = worked > 0 ? ((event.total - event.done) * elapsed) / worked / 1000 : undefined;
  const eta = left === undefined || left < 1 ? '' : `, about ${formatSeconds(Math.round(left))} left`;
  return printable(`${event.stage}: ${event.done}/${event.total}${share}${eta}`);
}
