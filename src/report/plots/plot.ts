/** A plot of a report: what it is called, and how it is drawn at a given width. */
import type { TopLevelSpec } from 'vega-lite';

export interface Plot {
  /** Letters and hyphens; unique in a report. */
  readonly id: string;
  readonly title: string;
  readonly caption: string;
  /** Plots of span `half` may stand side by side on a wide page. */
  readonly span: 'full' | 'half';
  /** The Vega-Lite specification for a picture `width` pixels wide. */
  readonly spec: (width: number) => TopLevelSpec;
}
