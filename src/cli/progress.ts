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
      if (event.note !== undefined) {
        stop();
        stream.write(noteText(event.note));
      }
      const { barsize, room } = layoutOf(printable(event.stage), stream.columns ?? 80);
      const payload = { detail: fitDetail(printable(event.detail ?? ''), room) };
      if (bar === undefined || event.stage !== stage) {
        stop();
        stage = event.stage;
        bar = new SingleBar({
          format: `${printable(event.stage)} [{bar}] {percentage}%  {eta_formatted} left  {detail}`,
          stream,
          barsize,
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

/** Characters around stage, bar and detail: ` [] 100%  01h30m left  `, and one that stays free. */
const FRAME = 24;
/** The detail for which a terminal that is wide enough leaves room, and the lengths of the bar. */
const DETAIL = 52;
const BAR = { shortest: 8, longest: 24 };

/** How a line of `columns` characters is shared between the bar and the detail. */
function layoutOf(stage: string, columns: number): { barsize: number; room: number } {
  const free = columns - stage.length - FRAME;
  const barsize = Math.max(BAR.shortest, Math.min(BAR.longest, free - DETAIL));
  return { barsize, room: Math.max(0, free - barsize) };
}

/** Whole parts of a list (`epoch 3, loss 0.4`) from its beginning, or a name with its middle cut out. */
function fitDetail(detail: string, room: number): string {
  const parts = detail.split(', ');
  while (parts.length > 1 && parts.join(', ').length > room) parts.pop();
  const text = parts.join(', ');
  return text.length <= room ? text : room < 8 ? '' : truncateMiddle(text, room);
}

/** Set apart from what is around it. */
function noteText(note: string): string {
  return `\n${note.split('\n').map(printable).join('\n')}\n\n`;
}

function lineDisplay(stream: OutputStream, now: () => number): ProgressDisplay {
  let lastLine = now();
  let stage: { name: string; start: number; from: number } | undefined;
  return {
    stop: () => undefined,
    onProgress: (event) => {
      if (event.note !== undefined) stream.write(noteText(event.note));
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
