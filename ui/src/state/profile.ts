// The server's answers for the current selection: flame graph, time series and nodes. The last
// profile stays on the page until the next one arrives, also while the server is unreachable.
import { fetchContainers, fetchFlameGraph, fetchNodes, fetchStatus, fetchTimeSeries, type FlameGraph, type Selection } from "../api/routes.ts";
import { readServerClock, RefusedError, type Asking } from "../api/request.ts";
import type { ApiErrorBody, ContainersAnswer, NodesAnswer, QuestionProgress, StatusAnswer, TimeSeriesAnswer } from "../api/shapes.ts";
import { graftBranch } from "../lib/flame-graft.ts";
import { pathOf, resolvePath, type FlamePath } from "../lib/flame-path.ts";
import { resolveRange, TimeError } from "../lib/time-range.ts";
import { DEFAULT_STATE, type PageState } from "../lib/url-state.ts";
import { findEmptyReason, type EmptyReason } from "./empty-reason.ts";
import { createLatestRequest, type LatestRequest } from "./latest-request.ts";
import { createStore, type Store } from "./store.ts";

/** Series shown separately in the chart; the others are summed. */
export const SERIES_LIMIT = 8;

/**
 * Subtrees fetched for one path. Each has up to 200,000 nodes, and a path rarely needs more than
 * one.
 */
const BRANCHES_MAX = 8;

/** The server's maximum per answer. */
const NODES_MAX = 1_000_000;

/** Delays between retries while the server is unreachable, in milliseconds. */
const RETRY_MS = [2_000, 4_000, 8_000, 15_000];

export interface ProfileState {
  /** The selection of the shown profile; null before the first. */
  selection: Selection | null;
  graph: FlameGraph | null;
  series: TimeSeriesAnswer | null;
  /** The label by which `series` is split. */
  seriesBy: string;
  nodes: NodesAnswer | null;
  /** The number of containers, and their sums; the table fetches the rows. */
  containers: ContainersAnswer | null;
  status: StatusAnswer | null;
  emptyReason: EmptyReason | null;
  /** A request for the whole profile is running. */
  loading: boolean;
  /** How far the server is with the flame graph or a subtree; null for a request that does not take long. */
  progress: QuestionProgress | null;
  /** A request for a cut subtree is running. */
  branchLoading: boolean;
  /** The last request for a cut subtree brought nothing new. */
  branchMissing: boolean;
  /** The server's error about the query. */
  refusal: ApiErrorBody | null;
  /** The error of the last request, and the time of the next retry. */
  unreachable: { message: string; retryAtMs: number } | null;
}

export interface Profile extends Store<ProfileState> {
  /** Fetches everything. */
  load(page: PageState): void;
  /** Fetches only the time series, when only their label changed. */
  loadSeries(page: PageState): void;
  /** Fetches the cut subtrees on a path. */
  loadBranches(path: FlamePath): void;
  /** Fetches the subtree that a cut node stands for. */
  expand(cutNode: number): void;
}

const INITIAL: ProfileState = {
  selection: null,
  graph: null,
  series: null,
  seriesBy: "",
  nodes: null,
  containers: null,
  status: null,
  emptyReason: null,
  loading: false,
  progress: null,
  branchLoading: false,
  branchMissing: false,
  refusal: null,
  unreachable: null,
};

/** The answers that are fetched together. */
type ProfileAnswers = Pick<ProfileState, "selection" | "graph" | "series" | "seriesBy" | "nodes" | "containers" | "status" | "emptyReason">;

function selectionOf(page: PageState): Selection {
  return { query: page.query, range: resolveRange(page, readServerClock(), page.zone) };
}

/** Fetches and grafts subtrees until the tree contains the path, or no more are available. */
async function graftPath(selection: Selection, graph: FlameGraph, path: FlamePath, asking: Asking): Promise<FlameGraph> {
  let grafted = graph;
  for (let round = 0; round < BRANCHES_MAX; round += 1) {
    const { node, cutHere } = resolvePath(grafted.tree, path);
    if (!cutHere) break;
    const next = await graftBelow(selection, grafted, node, asking);
    if (next === grafted) break;
    grafted = next;
  }
  return grafted;
}

/** Fetches the cut subtree below a node. Returns the same graph if there is nothing more. */
async function graftBelow(selection: Selection, graph: FlameGraph, node: number, asking: Asking): Promise<FlameGraph> {
  if (node > 0) {
    const branch = await fetchFlameGraph(selection, { path: pathOf(graph.tree, node) }, asking);
    // Graft only if the sums agree. They differ if the server merged siblings of the same name, or
    // if more windows arrived since; then fetch the whole tree.
    const sameSum = branch.tree.total[0] === graph.tree.total[node];
    if (sameSum && branch.tree.length > graph.tree.end[node]! - node) return { ...graph, tree: graftBranch(graph.tree, node, branch.tree) };
  }
  const whole = await fetchFlameGraph(selection, { nodesMax: NODES_MAX }, asking);
  return whole.tree.length > graph.tree.length ? whole : graph;
}

async function fetchProfile(page: PageState, asking: Asking): Promise<ProfileAnswers> {
  // Only the flame graph is followed: the other answers need a small part of what it reads.
  const quiet = asking.signal ? { signal: asking.signal } : {};
  const askedClock = readServerClock();
  const selection = selectionOf(page);
  const [graph, series, nodes, containers, status] = await Promise.all([
    fetchFlameGraph(selection, {}, asking),
    fetchTimeSeries(selection, { by: page.by, limit: SERIES_LIMIT }, quiet),
    fetchNodes(selection, quiet),
    fetchContainers(selection, { sort: "kernel", limit: 0 }, quiet),
    fetchStatus(quiet),
  ]);
  // The first answer may reveal that this machine's clock is wrong: fetch again with the right
  // range.
  if (Math.abs(readServerClock() - askedClock) > 30_000 && page.from.startsWith("now")) {
    return fetchProfile(page, asking);
  }
  const grafted = await graftPath(selection, graph, page.zoom, asking);
  const emptyReason = graph.totalNs === 0 ? await findEmptyReason(selection, graph, readServerClock(), quiet) : null;
  return { selection, graph: grafted, series, seriesBy: page.by, nodes, containers, status, emptyReason };
}

export function createProfile(): Profile {
  const store = createStore<ProfileState>(INITIAL);
  // The last requested page state: a retry must not request the state from before a change.
  let wanted: PageState = DEFAULT_STATE;
  const whole = createLatestRequest();
  const series = createLatestRequest();
  const branch = createLatestRequest();
  let failures = 0;

  function fail(error: Error, retried: LatestRequest, again: () => void): void {
    if (error instanceof RefusedError && error.status < 500) {
      store.set({ refusal: error.body, unreachable: null });
      return;
    }
    if (error instanceof TimeError) {
      store.set({ refusal: { kind: "bad_time", message: error.message, parameter: "from" }, unreachable: null });
      return;
    }
    const waitMs = RETRY_MS[Math.min(failures, RETRY_MS.length - 1)]!;
    failures += 1;
    store.set({ unreachable: { message: error.message, retryAtMs: Date.now() + waitMs } });
    retried.retry(waitMs, again);
  }

  function succeed(patch: Partial<ProfileState>): void {
    failures = 0;
    store.set({ ...patch, unreachable: null });
  }

  const askWith = (signal: AbortSignal): Asking => ({ signal, onProgress: (progress) => store.set({ progress }) });

  const reload = (): void => profile.load(wanted);

  function requestBranch(graft: (selection: Selection, graph: FlameGraph, asking: Asking) => Promise<FlameGraph>): void {
    const { selection, graph } = store.get();
    if (!selection || !graph) return;
    store.set({ branchLoading: true, branchMissing: false, progress: null });
    branch.replace((signal) => graft(selection, graph, askWith(signal)), {
      onAnswer: (grafted) => succeed({ graph: grafted, branchLoading: false, branchMissing: grafted === graph }),
      onFailure(error) {
        store.set({ branchLoading: false });
        fail(error, branch, () => requestBranch(graft));
      },
    });
  }

  const profile: Profile = {
    ...store,
    load(page) {
      wanted = page;
      series.cancel();
      branch.cancel();
      store.set({ loading: true, branchLoading: false, branchMissing: false, progress: null });
      whole.replace((signal) => fetchProfile(page, askWith(signal)), {
        onAnswer(answers) {
          // A subtree that is still being fetched belongs to the previous tree.
          branch.cancel();
          succeed({ ...answers, loading: false, branchLoading: false, refusal: null });
          if (wanted.zoom !== page.zoom) profile.loadBranches(wanted.zoom);
        },
        onFailure(error) {
          store.set({ loading: false });
          fail(error, whole, reload);
        },
      });
    },
    loadSeries(page) {
      wanted = page;
      const { selection, loading } = store.get();
      // The running request for the whole profile has the previous label.
      if (!selection || loading) return reload();
      series.replace((signal) => fetchTimeSeries(selection, { by: page.by, limit: SERIES_LIMIT }, { signal }), {
        onAnswer: (answer) => succeed({ series: answer, seriesBy: page.by }),
        onFailure: (error) => fail(error, series, reload),
      });
    },
    loadBranches(path) {
      wanted = { ...wanted, zoom: path };
      const { graph } = store.get();
      if (!graph || !resolvePath(graph.tree, path).cutHere) return;
      requestBranch((selection, current, asking) => graftPath(selection, current, path, asking));
    },
    expand(cutNode) {
      requestBranch((selection, graph, asking) => graftBelow(selection, graph, graph.tree.parent[cutNode]!, asking));
    },
  };
  return profile;
}
