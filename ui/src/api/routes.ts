// The API routes that the page requests, one function each.
import { buildTree, deriveColumns, type FlameTree } from "../lib/flame-tree.ts";
import { splitMatchers } from "../lib/containers.ts";
import { createColumnReader, type Column, type ColumnKind } from "../lib/column-reader.ts";
import { stepName, type FlamePath } from "../lib/flame-path.ts";
import { formatSelector, parseSelector } from "../lib/selector.ts";
import { markBuilt, markReceived } from "../lib/timing.ts";
import type { RangeMs } from "../lib/time-range.ts";
import type { ContainerSort, SortKey } from "../lib/url-state.ts";
import { getJson, writeUrl, type BodyReader, type Parameters } from "./request.ts";
import type { ContainersAnswer, FlameGraphAnswer, LinesAnswer, NodesAnswer, SeriesAnswer, StacksAnswer, StatusAnswer, TimeSeriesAnswer, TopAnswer, UnknownAnswer, UnreadWindows } from "./shapes.ts";

/** The series and the time range of a query. */
export interface Selection {
  query: string;
  range: RangeMs;
}

function shared({ query, range }: Selection): Parameters {
  return { query, from: range.fromMs, to: range.toMs };
}

export async function fetchLabels(selection: Selection, signal?: AbortSignal): Promise<string[]> {
  return (await getJson<{ labels: string[] }>("labels", shared(selection), signal)).labels;
}

export async function fetchLabelValues(label: string, selection: Selection, signal?: AbortSignal): Promise<string[]> {
  const route = `label/${encodeURIComponent(label)}/values`;
  return (await getJson<{ values: string[] }>(route, shared(selection), signal)).values;
}

export function fetchSeries(selection: Selection, limit: number, signal?: AbortSignal): Promise<SeriesAnswer> {
  return getJson("series", { ...shared(selection), limit }, signal);
}

export interface TimeSeriesOptions {
  by: string;
  limit: number;
  /** A multiple of the windows' 10 s; absent: the server chooses. */
  stepMs?: number;
}

export function fetchTimeSeries(selection: Selection, options: TimeSeriesOptions, signal?: AbortSignal): Promise<TimeSeriesAnswer> {
  const step = options.stepMs === undefined ? undefined : `${options.stepMs / 1000}s`;
  return getJson("timeseries", { ...shared(selection), by: options.by || undefined, unit: "cores", limit: options.limit, step }, signal);
}

/** The answer to a flame graph request, with its columns built into a tree. */
export interface FlameGraph {
  totalNs: number;
  samples: number;
  /** CPU time of the samples with a user stack, and the part of it whose stacks are complete. */
  userNs: number;
  completeNs: number;
  /** CPU time of the samples with an unnamed frame anywhere in the stack. */
  unnamedNs: number;
  nodeCount: number;
  tree: FlameTree;
  /** Windows that the server could not read. */
  incomplete: UnreadWindows[];
  /** Whether rolled-up windows lack the addresses of frames with function and line. */
  lacksAddresses: boolean;
}

/** `buildTree` computes the self time from the totals, which is faster than reading it. */
const COLUMN_KINDS = { depth: "int", frame: "int", total_ns: "float", self_ns: "skip", samples: "float" } as const satisfies Record<string, ColumnKind>;

function toFlameGraph(answer: FlameGraphAnswer, columns: ReadonlyMap<string, Column> = new Map(), derived?: ReturnType<typeof deriveColumns>): FlameGraph {
  const { strings, frames, nodes } = answer;
  const namesOf = (indexes: number[]): string[] => indexes.map((index) => strings[index] ?? "");
  const column = (name: "depth" | "frame" | "total_ns" | "samples"): ArrayLike<number> => columns.get(name) ?? nodes[name];
  const tree = buildTree(
    {
      depth: column("depth"),
      frame: column("frame"),
      total: column("total_ns"),
      samples: column("samples"),
      cut: new Map(Object.entries(nodes.cut ?? {}).map(([node, count]) => [Number(node), count])),
      frames: {
        name: namesOf(frames.name),
        binary: namesOf(frames.binary),
        file: namesOf(frames.file),
        line: frames.line,
        kind: frames.kind,
        unnamed: new Map(Object.entries(frames.unnamed ?? {}).map(([frame, { reason, build_id: id }]) => [Number(frame), { reason, buildId: strings[id] ?? "" }])),
      },
    },
    derived,
  );
  return {
    totalNs: answer.total_ns,
    samples: answer.samples,
    userNs: answer.total_ns - answer.kernel_only_ns,
    completeNs: answer.complete_ns - answer.kernel_only_ns,
    unnamedNs: answer.unnamed_ns,
    nodeCount: answer.node_count,
    tree,
    incomplete: answer.incomplete ?? [],
    lacksAddresses: answer.lacks_addresses ?? false,
  };
}

/**
 * Reads an answer while it arrives: parses its columns straight into typed arrays, and computes the
 * derived columns as soon as depths and totals are complete. `finish` returns null when the answer is
 * not in the server's compact form.
 */
export function createFlameGraphReader(): BodyReader<FlameGraph | null> {
  const reader = createColumnReader("nodes", COLUMN_KINDS);
  let derived: ReturnType<typeof deriveColumns> | undefined;
  return {
    push(chunk) {
      reader.push(chunk);
      const [depth, total] = [reader.columns.get("depth"), reader.columns.get("total_ns")];
      if (!derived && depth && total) derived = deriveColumns(depth, total);
    },
    finish() {
      markReceived();
      const answer = reader.finish() as FlameGraphAnswer | null;
      const graph = answer && toFlameGraph(answer, reader.columns, derived);
      markBuilt();
      return graph;
    },
  };
}

export interface FlameGraphOptions {
  /** Request only the subtree below this path; absent: the whole tree. */
  path?: FlamePath;
  /** Absent: the server chooses. */
  nodesMax?: number;
}

export async function fetchFlameGraph(selection: Selection, { path, nodesMax }: FlameGraphOptions, signal?: AbortSignal): Promise<FlameGraph> {
  const names = path && JSON.stringify(path.map(stepName));
  const parameters = { ...shared(selection), path: names, max_nodes: nodesMax };
  const graph = await getJson("flamegraph", parameters, signal, createFlameGraphReader());
  // A proxy has reformatted the JSON, which the fast reader does not support: request it again for
  // the slow one.
  return graph ?? toFlameGraph(await getJson<FlameGraphAnswer>("flamegraph", parameters, signal));
}

export interface TopOptions {
  sort: SortKey;
  search: string;
  limit: number;
  offset: number;
}

export function fetchTop(selection: Selection, options: TopOptions, signal?: AbortSignal): Promise<TopAnswer> {
  const { sort, search, limit, offset } = options;
  return getJson("top", { ...shared(selection), sort, search: search || undefined, limit, offset: offset || undefined }, signal);
}

/** Rows of each list in the panels. */
const STACK_ROWS = 50;

export function fetchStacks(selection: Selection, signal?: AbortSignal): Promise<StacksAnswer> {
  return getJson("stacks", { ...shared(selection), limit: STACK_ROWS }, signal);
}

export function fetchUnknown(selection: Selection, signal?: AbortSignal): Promise<UnknownAnswer> {
  return getJson("unknown", { ...shared(selection), limit: STACK_ROWS }, signal);
}

/** The identity of a function in the graph and the table. */
export interface FunctionId {
  name: string;
  binary: string;
  file: string;
}

export function fetchLines(selection: Selection, { name, binary, file }: FunctionId, signal?: AbortSignal): Promise<LinesAnswer> {
  return getJson("lines", { ...shared(selection), function: name, binary, file }, signal);
}

export function fetchNodes(selection: Selection, signal?: AbortSignal): Promise<NodesAnswer> {
  return getJson("nodes", shared(selection), signal);
}

/** Leaves out the selection's matchers of processes, which the server refuses here. */
export function fetchContainers({ query, range }: Selection, options: { sort: ContainerSort; limit: number }, signal?: AbortSignal): Promise<ContainersAnswer> {
  const { matchers } = parseSelector(query);
  const ofContainers = matchers ? formatSelector(splitMatchers(matchers).ofContainers) : query;
  return getJson("containers", { ...shared({ query: ofContainers, range }), ...options }, signal);
}

export function fetchStatus(signal?: AbortSignal): Promise<StatusAnswer> {
  return getJson("status", {}, signal);
}

/** Builds the URL of the same selection in another format, for links. */
export function linkTo(route: "pprof" | "flamegraph.svg" | "folded", selection: Selection): string {
  return writeUrl(route, shared(selection));
}
