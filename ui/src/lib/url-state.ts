// Converts the page's state to and from its URL. Default values are left out of the URL; invalid
// values in it become the default.
import { parsePath, type FlamePath } from "./flame-path.ts";
import { DEFAULT_RANGE } from "./time-range.ts";

export type ThemeChoice = "auto" | "light" | "dark";
export type SortKey = "self" | "total";
export type ChartStyle = "stacked" | "lines";
export type ContainerSort = "kernel" | "sampled" | "ratio" | "throttled" | "excluded";
export type Panels = "both" | "graph" | "table" | "containers";

/** All settings of the page. */
export interface PageState {
  query: string;
  from: string;
  to: string;
  /** The label by which the chart is split; empty: one series. */
  by: string;
  chart: ChartStyle;
  search: string;
  zoom: FlamePath;
  /** Direct recursion is drawn as one box. */
  fold: boolean;
  sort: SortKey;
  /** The filter of the function table. */
  filter: string;
  panels: Panels;
  containerSort: ContainerSort;
  theme: ThemeChoice;
  zone: "local" | "utc";
  /** Seconds between automatic refreshes, 0 for none. */
  refresh: number;
}

export const DEFAULT_STATE: PageState = {
  query: "{}",
  from: DEFAULT_RANGE.from,
  to: DEFAULT_RANGE.to,
  by: "comm",
  chart: "stacked",
  search: "",
  zoom: [],
  fold: false,
  sort: "self",
  filter: "",
  panels: "both",
  containerSort: "kernel",
  theme: "auto",
  zone: "local",
  refresh: 0,
};

export const REFRESH_SECONDS = [0, 10, 30, 60, 300];

function oneOf<T extends string>(value: string | null, known: readonly T[]): T | undefined {
  return known.find((candidate) => candidate === value);
}

/**
 * Parses a URL's query string. Settings that are missing in it come from `base`, the user's
 * preferences.
 */
export function readAddress(search: string, base: PageState = DEFAULT_STATE): PageState {
  const fields = new URLSearchParams(search);
  const refresh = Number(fields.get("refresh") ?? base.refresh);
  return {
    query: fields.get("query") ?? base.query,
    from: fields.get("from") ?? base.from,
    to: fields.get("to") ?? base.to,
    by: fields.get("by") ?? base.by,
    chart: oneOf(fields.get("chart"), ["stacked", "lines"]) ?? base.chart,
    search: fields.get("search") ?? base.search,
    zoom: parsePath(fields.get("zoom") ?? "[]") ?? [],
    fold: fields.has("fold") ? fields.get("fold") === "recursion" : base.fold,
    sort: oneOf(fields.get("sort"), ["self", "total"]) ?? base.sort,
    filter: fields.get("filter") ?? base.filter,
    panels: oneOf(fields.get("panels"), ["both", "graph", "table", "containers"]) ?? base.panels,
    containerSort: oneOf(fields.get("csort"), ["kernel", "sampled", "ratio", "throttled", "excluded"]) ?? base.containerSort,
    theme: oneOf(fields.get("theme"), ["auto", "light", "dark"]) ?? base.theme,
    zone: oneOf(fields.get("tz"), ["local", "utc"]) ?? base.zone,
    refresh: REFRESH_SECONDS.includes(refresh) ? refresh : base.refresh,
  };
}

/** Formats a URL's query string; empty if all settings have their default. */
export function writeAddress(state: PageState, base: PageState = DEFAULT_STATE): string {
  const fields = new URLSearchParams();
  const put = (name: string, value: string, fallback: string): void => {
    if (value !== fallback) fields.set(name, value);
  };
  put("query", state.query, base.query);
  put("from", state.from, base.from);
  put("to", state.to, base.to);
  put("by", state.by, base.by);
  put("chart", state.chart, base.chart);
  put("search", state.search, base.search);
  put("zoom", JSON.stringify(state.zoom), "[]");
  put("fold", state.fold ? "recursion" : "none", base.fold ? "recursion" : "none");
  put("sort", state.sort, base.sort);
  put("filter", state.filter, base.filter);
  put("panels", state.panels, base.panels);
  put("csort", state.containerSort, base.containerSort);
  put("theme", state.theme, base.theme);
  put("tz", state.zone, base.zone);
  put("refresh", String(state.refresh), String(base.refresh));
  const text = fields.toString();
  return text === "" ? "" : `?${text}`;
}
