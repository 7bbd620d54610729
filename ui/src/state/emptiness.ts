// Nothing was found: why? Asked only then, with a few small questions.
import { fetchNodes, fetchSeries, type Selection } from "../api/routes.ts";
import { formatMatcher, formatSelector, parseSelector, type Matcher } from "../lib/selector.ts";
import type { RangeMs } from "../lib/time-range.ts";

export type Emptiness =
  /** No collector has ever sent anything. */
  | { kind: "store" }
  /** There is data, at other times. */
  | { kind: "range"; data: RangeMs }
  /** These matchers select nothing in the range, each by itself. */
  | { kind: "matchers"; matchers: Matcher[] }
  /** Each matcher selects something, all together nothing. */
  | { kind: "combination" }
  /** Collectors reported, and nothing ran. */
  | { kind: "idle" };

/** Asks at most this many matchers one by one. */
const MATCHERS_ASKED_MAX = 12;

/** Ends of "all times": the epoch, and a day ahead for clocks that are fast. */
function allTimes(nowMs: number): RangeMs {
  return { fromMs: 0, toMs: nowMs + 86_400_000 };
}

export async function explainEmptiness(selection: Selection, nowMs: number, signal: AbortSignal): Promise<Emptiness> {
  const ever = await fetchNodes({ query: "{}", range: allTimes(nowMs) }, signal);
  if (ever.nodes.length === 0) return { kind: "store" };
  const inRange = await fetchNodes({ query: "{}", range: selection.range }, signal);
  if (inRange.nodes.length === 0) {
    const fromMs = Math.min(...ever.nodes.map((node) => node.first_ms));
    const toMs = Math.max(...ever.nodes.map((node) => node.last_ms));
    return { kind: "range", data: { fromMs, toMs } };
  }
  const matchers = parseSelector(selection.query).matchers ?? [];
  if (matchers.length === 0) return { kind: "idle" };
  const asked = matchers.slice(0, MATCHERS_ASKED_MAX);
  const answers = await Promise.all(
    asked.map((matcher) => fetchSeries({ query: formatSelector([matcher]), range: selection.range }, 1, signal)),
  );
  const empty = asked.filter((_, at) => answers[at]!.total === 0);
  return empty.length > 0 ? { kind: "matchers", matchers: empty } : { kind: "combination" };
}

/** The matchers as one phrase: `comm="x" and pod="y"`. */
export function describeMatchers(matchers: readonly Matcher[]): string {
  return matchers.map(formatMatcher).join(" and ");
}
