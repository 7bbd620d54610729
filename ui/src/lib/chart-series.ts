// Prepares the time series for the chart: one column of heights per series, in drawing order, with
// a gap in each step that no collector reported.

export type Values = readonly (number | null)[];

/**
 * Stacks the series: column i is the sum of the series from 0 to i. A step is a gap only if it is
 * one in all series; a missing value in some of them counts as 0.
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

/** The duration for which any collector reported, in milliseconds. */
export function reportedMs(coveredMs: readonly number[]): number {
  return coveredMs.reduce((sum, ms) => sum + ms, 0);
}

/** CPU time as a mean number of cores over a duration; null for a duration of 0. */
export function meanCores(totalNs: number, ms: number): number | null {
  return ms === 0 ? null : totalNs / (ms * 1e6);
}

/** The largest value of all columns, 0 if there is none. */
export function largestValue(series: readonly Values[]): number {
  let largest = 0;
  for (const values of series) for (const value of values) if (value !== null && value > largest) largest = value;
  return largest;
}
