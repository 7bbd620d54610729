// The time series as the chart draws them: one column of heights per series, in
// drawing order, and gaps where no collector reported.

export type Values = readonly (number | null)[];

/**
 * Stacks series on each other: column i is the sum of the series from 0 to i.
 * A point is a gap only where all series have one; a single missing value adds nothing.
 */
export function stackValues(series: readonly Values[]): (number | null)[][] {
  const length = series[0]?.length ?? 0;
  const sums = new Array<number>(length).fill(0);
  const gaps = Array.from({ length }, (_, at) => series.every((values) => values[at] === null));
  return series.map((values) =>
    gaps.map((gap, at) => {
      if (gap) return null;
      sums[at] = sums[at]! + (values[at] ?? 0);
      return sums[at]!;
    }),
  );
}

/** The time in which any collector reported, in milliseconds: the steps that are no gap in all series. */
export function reportedMs(series: readonly Values[], stepMs: number): number {
  const length = series[0]?.length ?? 0;
  let steps = 0;
  for (let at = 0; at < length; at += 1) if (series.some((values) => values[at] !== null)) steps += 1;
  return steps * stepMs;
}

/** CPU time as a mean number of cores over a time; null when there was no time. */
export function meanCores(totalNs: number, ms: number): number | null {
  return ms === 0 ? null : totalNs / (ms * 1e6);
}

/** The largest value of all columns, 0 when there is none. */
export function largestValue(series: readonly Values[]): number {
  let largest = 0;
  for (const values of series) for (const value of values) if (value !== null && value > largest) largest = value;
  return largest;
}
