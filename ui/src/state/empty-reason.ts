// Finds the reason why a selection is empty, with a few small requests.
import { fetchNodes, fetchSeries, type FlameGraph, type Selection } from "../api/routes.ts";
import type { Asking } from "../api/request.ts";
import type { NodeEntry, UnreadWindows } from "../api/shapes.ts";
import { formatMatcher, formatSelector, parseSelector, type Matcher } from "../lib/selector.ts";
import type { RangeMs } from "../lib/time-range.ts";

export type EmptyReason =
  /** No collector has ever sent a window. These nodes have reported nevertheless. */
  | { kind: "store"; nodes: NodeEntry[] }
  /** There is data, but outside of the range. */
  | { kind: "range"; data: RangeMs }
  /** Each of these matchers selects nothing in the range. */
  | { kind: "matchers"; matchers: Matcher[] }
  /** Each matcher selects something, but all together select nothing. */
  | { kind: "combination" }
  /** The server could not read the windows. */
  | { kind: "unread"; incomplete: UnreadWindows[] }
  /** Collectors sent windows, but no process ran. */
  | { kind: "idle" };

/** Limits the requests: one for each matcher. */
const MATCHERS_ASKED_MAX = 12;

/** From the epoch to one day ahead, since a node's clock may be fast. */
function allTimes(nowMs: number): RangeMs {
  return { fromMs: 0, toMs: nowMs + 86_400_000 };
}

export async function findEmptyReason(selection: Selection, { incomplete }: FlameGraph, nowMs: number, asking: Asking): Promise<EmptyReason> {
  if (incomplete.length > 0) return { kind: "unread", incomplete };
  const { nodes } = await fetchNodes({ query: "{}", range: allTimes(nowMs) }, asking);
  const ever = nodes.filter(hasWindows);
  if (ever.length === 0) return { kind: "store", nodes };
  const inRange = await fetchNodes({ query: "{}", range: selection.range }, asking);
  if (!inRange.nodes.some(hasWindows)) {
    const fromMs = Math.min(...ever.map((node) => node.first_ms));
    const toMs = Math.max(...ever.map((node) => node.last_ms));
    return { kind: "range", data: { fromMs, toMs } };
  }
  const matchers = parseSelector(selection.query).matchers ?? [];
  if (matchers.length === 0) return { kind: "idle" };
  const asked = matchers.slice(0, MATCHERS_ASKED_MAX);
  const answers = await Promise.all(
    asked.map((matcher) => fetchSeries({ query: formatSelector([matcher]), range: selection.range }, 1, asking)),
  );
  const empty = asked.filter((_, at) => answers[at]!.total === 0);
  return empty.length > 0 ? { kind: "matchers", matchers: empty } : { kind: "combination" };
}

function hasWindows(node: NodeEntry): boolean {
  return node.windows > 0;
}

/** Formats matchers as one phrase: `comm="x" and pod="y"`. */
export function describeMatchers(matchers: readonly Matcher[]): string {
  return matchers.map(formatMatcher).join(" and ");
}
