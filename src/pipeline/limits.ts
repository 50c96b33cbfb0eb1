/** What a compressed model must keep to, and how far a model is from it. */

export interface Limits {
  /** Of the file. */
  readonly bytes?: number | undefined;
  /** Of the time of one run to that of the original. */
  readonly timeRatio?: number | undefined;
  /** Fall of the metric on VAL. */
  readonly drop?: number | undefined;
}

export type LimitName = keyof Limits;

/** What a model is; undefined where it is not known. */
export type Figures = Readonly<Record<LimitName, number | undefined>>;

/** Times vary from one measurement to the next. */
export const TIME_TOLERANCE = 0.005;

/** The limits that the figures do not keep to. A figure that is not known breaks none. */
export function missed(limits: Limits, figures: Figures): LimitName[] {
  return (['bytes', 'timeRatio', 'drop'] as const).filter((name) => {
    const [limit, figure] = [limits[name], figures[name]];
    if (limit === undefined || figure === undefined) return false;
    return figure > limit * (name === 'timeRatio' ? 1 + TIME_TOLERANCE : 1);
  });
}

/** How far the limits are missed: the sum of the logarithms of the excess; 0 where none is. */
export function excess(limits: Limits, figures: Figures): number {
  return missed(limits, figures).reduce((sum, name) => sum + Math.log(figures[name]! / limits[name]!), 0);
}
