// What the server said about the current selection: the flame graph, the time
// series and the nodes. The last picture stays until the next one is there, also
// when the server is away.
import { fetchFlameGraph, fetchNodes, fetchTimeSeries, type FlameGraph, type Selection } from "../api/routes.ts";
import { readServerClock, RefusedError } from "../api/request.ts";
import type { ApiErrorBody, NodesAnswer, TimeSeriesAnswer } from "../api/shapes.ts";
import { graftBranch } from "../lib/flame-graft.ts";
import { pathOf, resolvePath, type FlamePath } from "../lib/flame-path.ts";
import { resolveRange, TimeError } from "../lib/time-range.ts";
import type { PageState } from "../lib/url-state.ts";
import { explainEmptiness, type Emptiness } from "./emptiness.ts";
import { createStore, type Store } from "./store.ts";

/** Series kept apart in the chart; the others are one sum. */
export const SERIES_LIMIT = 8;

/** Branches asked for one address: each brings up to 200,000 nodes, and a path rarely leaves even one. */
const BRANCHES_MAX = 8;

/** As many nodes as the server gives in one answer. */
const NODES_MAX = 1_000_000;

/** Waits between tries when the server is away, in milliseconds. */
const RETRY_MS = [2_000, 4_000, 8_000, 15_000];

export interface ProfileState {
  /** What the picture shows; null before the first. */
  selection: Selection | null;
  graph: FlameGraph | null;
  series: TimeSeriesAnswer | null;
  /** The label that `series` is split by. */
  seriesBy: string;
  nodes: NodesAnswer | null;
  emptiness: Emptiness | null;
  /** Set while an answer is awaited. */
  loading: boolean;
  /** Set while a part that was cut is awaited. */
  branching: boolean;
  /** Set when a part that was cut was asked for and cannot be had. */
  branchless: boolean;
  /** What the server found wrong with the question. */
  refusal: ApiErrorBody | null;
  /** Why there was no answer, and when it is asked for again. */
  away: { message: string; retryAtMs: number } | null;
}

export interface Profile extends Store<ProfileState> {
  /** Asks for everything anew. */
  load(page: PageState): void;
  /** Asks for the time series alone, when only its label changed. */
  loadSeries(page: PageState): void;
  /** Brings in the parts of the tree that a path needs and that were cut. */
  loadBranches(path: FlamePath): void;
  /** Brings in what one cut node stands for. */
  expand(cutNode: number): void;
}

const INITIAL: ProfileState = {
  selection: null,
  graph: null,
  series: null,
  seriesBy: "",
  nodes: null,
  emptiness: null,
  loading: false,
  branching: false,
  branchless: false,
  refusal: null,
  away: null,
};

function selectionOf(page: PageState): Selection {
  return { query: page.query, range: resolveRange(page, readServerClock(), page.zone) };
}

/** Fetches and grafts until the path is in the tree, or cannot be. */
async function growTree(selection: Selection, graph: FlameGraph, path: FlamePath, signal: AbortSignal): Promise<FlameGraph> {
  let grown = graph;
  for (let round = 0; round < BRANCHES_MAX; round += 1) {
    const { node, cutHere } = resolvePath(grown.tree, path);
    if (!cutHere) break;
    const next = await growAt(selection, grown, node, signal);
    if (next === grown) break;
    grown = next;
  }
  return grown;
}

/** Brings in what was cut below a node; the same graph again when there is no more to be had. */
async function growAt(selection: Selection, graph: FlameGraph, node: number, signal: AbortSignal): Promise<FlameGraph> {
  if (node > 0) {
    const branch = await fetchFlameGraph(selection, { path: pathOf(graph.tree, node) }, signal);
    // The server lays siblings of one name over each other, and late windows may have
    // come since: a tree of two answers that differ would add up to neither.
    const sameSum = branch.tree.total[0] === graph.tree.total[node];
    if (sameSum && branch.tree.length > graph.tree.end[node]! - node) return { ...graph, tree: graftBranch(graph.tree, node, branch.tree) };
  }
  const whole = await fetchFlameGraph(selection, { nodesMax: NODES_MAX }, signal);
  return whole.tree.length > graph.tree.length ? whole : graph;
}

export function createProfile(): Profile {
  const store = createStore<ProfileState>(INITIAL);
  let loading = new AbortController();
  let branching = new AbortController();
  let retry: ReturnType<typeof setTimeout> | undefined;
  let failures = 0;

  function restart(): AbortSignal {
    loading.abort();
    branching.abort();
    clearTimeout(retry);
    loading = new AbortController();
    return loading.signal;
  }

  function fail(error: unknown, signal: AbortSignal, again: () => void): void {
    if (signal.aborted) return;
    if (error instanceof RefusedError && error.status < 500) {
      store.set({ loading: false, refusal: error.body, away: null });
      return;
    }
    if (error instanceof TimeError) {
      store.set({ loading: false, refusal: { kind: "bad_time", message: error.message, parameter: "from" }, away: null });
      return;
    }
    const waitMs = RETRY_MS[Math.min(failures, RETRY_MS.length - 1)]!;
    failures += 1;
    store.set({ loading: false, away: { message: (error as Error).message, retryAtMs: Date.now() + waitMs } });
    retry = setTimeout(again, waitMs);
  }

  async function loadAll(page: PageState, signal: AbortSignal): Promise<void> {
    const askedClock = readServerClock();
    const selection = selectionOf(page);
    const [graph, series, nodes] = await Promise.all([
      fetchFlameGraph(selection, {}, signal),
      fetchTimeSeries(selection, { by: page.by, limit: SERIES_LIMIT }, signal),
      fetchNodes(selection, signal),
    ]);
    // The first answer may tell that this machine's clock is off: ask for the right range.
    if (Math.abs(readServerClock() - askedClock) > 30_000 && page.from.startsWith("now")) {
      return loadAll(page, signal);
    }
    const grown = await growTree(selection, graph, page.zoom, signal);
    const emptiness = graph.totalNs === 0 ? await explainEmptiness(selection, readServerClock(), signal) : null;
    if (signal.aborted) return;
    failures = 0;
    store.set({ selection, graph: grown, series, seriesBy: page.by, nodes, emptiness, loading: false, refusal: null, away: null });
  }

  async function branch(grow: (selection: Selection, graph: FlameGraph, signal: AbortSignal) => Promise<FlameGraph>): Promise<void> {
    const { selection, graph } = store.get();
    if (!selection || !graph) return;
    branching.abort();
    branching = new AbortController();
    const { signal } = branching;
    store.set({ branching: true, branchless: false });
    try {
      const grown = await grow(selection, graph, signal);
      if (!signal.aborted) store.set({ graph: grown, branching: false, branchless: grown === graph });
    } catch (error) {
      if (!signal.aborted) store.set({ branching: false });
      fail(error, signal, () => void branch(grow));
    }
  }

  const profile: Profile = {
    ...store,
    load(page) {
      const signal = restart();
      store.set({ loading: true, branching: false, branchless: false });
      loadAll(page, signal).catch((error: unknown) => fail(error, signal, () => profile.load(page)));
    },
    loadSeries(page) {
      const { selection } = store.get();
      if (!selection) return profile.load(page);
      const { signal } = loading;
      fetchTimeSeries(selection, { by: page.by, limit: SERIES_LIMIT }, signal)
        .then((series) => store.set({ series, seriesBy: page.by }))
        .catch((error: unknown) => fail(error, signal, () => profile.load(page)));
    },
    loadBranches(path) {
      const { graph } = store.get();
      if (!graph || !resolvePath(graph.tree, path).cutHere) return;
      void branch((selection, current, signal) => growTree(selection, current, path, signal));
    },
    expand(cutNode) {
      void branch((selection, graph, signal) => growAt(selection, graph, graph.tree.parent[cutNode]!, signal));
    },
  };
  return profile;
}
