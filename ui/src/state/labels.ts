// Label names and values from the server, for completion and the quick filters.
import { fetchLabels, fetchLabelValues, fetchTimeSeries, type Selection } from "../api/routes.ts";
import type { Asking } from "../api/request.ts";
import { orderLabels, valuesQuery, rankCandidates, type CompletionContext } from "../lib/completion.ts";
import { OPERATORS } from "../lib/selector.ts";
import { WINDOW_MS, type RangeMs } from "../lib/time-range.ts";
import { createAnswer, type Answer } from "./answer.ts";

/** Longer lists are not readable; the user types more characters instead. */
const CANDIDATES_MAX = 50;

/** Values in a quick filter's menu, by CPU time. */
const VALUES_MAX = 24;

/** Cached answers; each is a list of strings. */
const CACHE_MAX = 64;

const cache = new Map<string, Promise<string[]>>();

function remember(key: string, ask: () => Promise<string[]>): Promise<string[]> {
  let answer = cache.get(key);
  if (answer === undefined) {
    const asked = ask();
    cache.set(key, asked);
    // Another request may have replaced this key after an eviction.
    asked.catch(() => cache.get(key) === asked && cache.delete(key));
    answer = asked;
    if (cache.size > CACHE_MAX) cache.delete(cache.keys().next().value!);
  }
  return answer;
}

/** The candidates at the caret, best first. */
export async function listCandidates(context: CompletionContext, range: RangeMs): Promise<string[]> {
  if (context.kind === "operator") return rankCandidates(OPERATORS, context.prefix, OPERATORS.length);
  if (context.kind === "label") {
    const names = await listLabels(range);
    return rankCandidates(names.filter((name) => !context.used.includes(name)), context.prefix, CANDIDATES_MAX);
  }
  const query = valuesQuery(context);
  const key = `values ${context.label} ${range.fromMs} ${range.toMs} ${query}`;
  const values = await remember(key, () => fetchLabelValues(context.label, { query, range }));
  return rankCandidates(values, context.prefix, CANDIDATES_MAX);
}

function listLabels(range: RangeMs): Promise<string[]> {
  return remember(`names ${range.fromMs} ${range.toMs}`, async () => orderLabels(await fetchLabels({ query: "{}", range })));
}

/** The names of all labels in a range. */
export function createLabels(): Answer<RangeMs, string[]> {
  return createAnswer(listLabels);
}

export interface LabelValue {
  value: string;
  totalNs: number;
}

export interface LabelValues {
  values: LabelValue[];
  /** The number of further values, and the sum of their CPU time. */
  restCount: number;
  restNs: number;
}

export interface ValuesQuery {
  label: string;
  selection: Selection;
}

/** A label's values within a selection, by CPU time. */
export function createValues(): Answer<ValuesQuery, LabelValues> {
  return createAnswer(rankValues);
}

/** The sums are exact: a time series with a single step. */
async function rankValues({ label, selection }: ValuesQuery, asking: Asking): Promise<LabelValues> {
  const { fromMs, toMs } = selection.range;
  const stepMs = Math.ceil((toMs - fromMs) / WINDOW_MS) * WINDOW_MS;
  const answer = await fetchTimeSeries(selection, { by: label, limit: VALUES_MAX, stepMs }, asking);
  return {
    values: answer.series.map((series) => ({ value: series.labels[label] ?? "", totalNs: series.total_ns })),
    restCount: answer.rest?.count ?? 0,
    restNs: answer.rest?.total_ns ?? 0,
  };
}
