// Real label names and values for completion and for the quick filters.
import { fetchLabels, fetchLabelValues, fetchTimeSeries, type Selection } from "../api/routes.ts";
import { contextQuery, rankCandidates, type Wanted } from "../lib/completion.ts";
import { OPERATORS } from "../lib/selector.ts";
import { WINDOW_MS, type RangeMs } from "../lib/time-range.ts";

/** Candidates shown at once; more is not read but typed further. */
const CANDIDATES_MAX = 50;

/** Values of one label offered in a filter's menu, the most CPU first. */
const VALUES_MAX = 24;

/** Answers kept; each is a list of strings. */
const CACHE_MAX = 64;

const cache = new Map<string, Promise<string[]>>();

function remember(key: string, ask: () => Promise<string[]>): Promise<string[]> {
  let answer = cache.get(key);
  if (answer === undefined) {
    answer = ask();
    cache.set(key, answer);
    answer.catch(() => cache.delete(key));
    if (cache.size > CACHE_MAX) cache.delete(cache.keys().next().value!);
  }
  return answer;
}

/** What can be typed at the caret, best first. */
export async function listCandidates(wanted: Wanted, range: RangeMs): Promise<string[]> {
  if (wanted.kind === "operator") return rankCandidates(OPERATORS, wanted.prefix, OPERATORS.length);
  const when = `${range.fromMs} ${range.toMs}`;
  if (wanted.kind === "label") {
    const names = await remember(`names ${when}`, () => fetchLabels({ query: "{}", range }));
    return rankCandidates(names.filter((name) => !wanted.used.includes(name)), wanted.prefix, CANDIDATES_MAX);
  }
  const query = contextQuery(wanted);
  const key = `values ${wanted.label} ${when} ${query}`;
  const values = await remember(key, () => fetchLabelValues(wanted.label, { query, range }));
  return rankCandidates(values, wanted.prefix, CANDIDATES_MAX);
}

/** The names of all labels in the range. */
export function listLabels(range: RangeMs): Promise<string[]> {
  return remember(`names ${range.fromMs} ${range.toMs}`, () => fetchLabels({ query: "{}", range }));
}

export interface LabelValue {
  value: string;
  totalNs: number;
}

export interface LabelValues {
  values: LabelValue[];
  /** How many more values there are, and their sum. */
  restCount: number;
  restNs: number;
}

/** A label's values within the selection by CPU time, exact: one point of the time series. */
export async function rankValues(label: string, selection: Selection, signal: AbortSignal): Promise<LabelValues> {
  const { fromMs, toMs } = selection.range;
  const stepMs = Math.ceil((toMs - fromMs) / WINDOW_MS) * WINDOW_MS;
  const answer = await fetchTimeSeries(selection, { by: label, limit: VALUES_MAX, stepMs }, signal);
  return {
    values: answer.series.map((series) => ({ value: series.labels[label] ?? "", totalNs: series.total_ns })),
    restCount: answer.rest?.count ?? 0,
    restNs: answer.rest?.total_ns ?? 0,
  };
}
