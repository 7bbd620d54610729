// The API routes that the page requests, one function each.
import { buildTree, type FlameTree } from "../lib/flame-tree.ts";
import { splitMatchers } from "../lib/containers.ts";
import { ColumnsError, readColumns, takeColumn, type Column, type ColumnsAnswer } from "../lib/columns.ts";
import { stepName, type FlamePath } from "../lib/flame-path.ts";
import { formatSelector, parseSelector } from "../lib/selector.ts";
import { markBuilt, markReceived } from "../lib/timing.ts";
import type { RangeMs } from "../lib/time-range.ts";
import type { ContainerSort, SortKey } from "../lib/url-state.ts";
import { getBytes, getJson, writeUrl, type Asking, type Parameters } from "./request.ts";
import type { ContainersAnswer, FlameGraphAnswer, LinesAnswer, NodesAnswer, SeriesAnswer, StacksAnswer, StatusAnswer, TimeSeriesAnswer, TopAnswer, UnknownAnswer, UnreadWindows } from "./shapes.ts";

/** The series and the time range of a query. */
export interface Selection {
  query: string;
  range: RangeMs;
}

function shared({ query, range }: Selection): Parameters {
  return { query, from: range.fromMs, to: range.toMs };
}

export async function fetchLabels(selection: Selection, asking?: Asking): Promise<string[]> {
  return (await getJson<{ labels: string[] }>("labels", shared(selection), asking)).labels;
}

export async function fetchLabelValues(label: string, selection: Selection, asking?: Asking): Promise<string[]> {
  const route = `label/${encodeURIComponent(label)}/values`;
  return (await getJson<{ values: string[] }>(route, shared(selection), asking)).values;
}

export function fetchSeries(selection: Selection, limit: number, asking?: Asking): Promise<SeriesAnswer> {
  return getJson("series", { ...shared(selection), limit }, asking);
}

export interface TimeSeriesOptions {
  by: string;
  limit: number;
  /** A multiple of the windows' 10 s; absent: the server chooses. */
  stepMs?: number;
}

export function fetchTimeSeries(selection: Selection, options: TimeSeriesOptions, asking?: Asking): Promise<TimeSeriesAnswer> {
  const step = options.stepMs === undefined ? undefined : `${options.stepMs / 1000}s`;
  return getJson("timeseries", { ...shared(selection), by: options.by || undefined, unit: "cores", limit: options.limit, step }, asking);
}

/** The answer to a flame graph request, as a tree. */
export interface FlameGraph {
  totalNs: number;
  samples: number;
  /** CPU time of the samples with a user stack, and the part of it whose stacks are complete. */
  userNs: number;
  completeNs: number;
  /** CPU time of the samples with an unnamed frame anywhere in the stack. */
  unnamedNs: number;
  tree: FlameTree;
  /** Windows that the server could not read. */
  incomplete: UnreadWindows[];
  /** Whether rolled-up windows lack the addresses of frames with function and line. */
  lacksAddresses: boolean;
}

const COLUMNS = "application/vnd.pilotlight.columns";

/** @throws ColumnsError, TreeError */
export function readFlameGraph(body: ArrayBuffer): FlameGraph {
  markReceived();
  const read = readColumns(body);
  const graph = toFlameGraph(read.answer as unknown as FlameGraphAnswer, read);
  markBuilt();
  return graph;
}

/** In place of `Array.from`, which takes several times as long for typed arrays. */
function toList<T>(column: Column, convert: (value: number) => T): T[] {
  const list: T[] = [];
  for (let at = 0; at < column.length; at += 1) list.push(convert(column[at]!));
  return list;
}

function scale(column: Column, factor: number): Float64Array {
  const scaled = new Float64Array(column);
  for (let at = 0; at < scaled.length; at += 1) scaled[at]! *= factor;
  return scaled;
}

function toFlameGraph(answer: FlameGraphAnswer, { columns }: ColumnsAnswer): FlameGraph {
  const { strings, frames, nodes } = answer;
  const stringOf = (index: number): string => {
    const text = strings[index];
    if (text === undefined) throw new ColumnsError(`the server's answer has no string ${index}`);
    return text;
  };
  const numbersOf = (name: string): number[] => toList(takeColumn(columns, name), (value) => value);
  const stringsOf = (name: string): string[] => toList(takeColumn(columns, name), stringOf);
  const samples = takeColumn(columns, "nodes.samples");
  const tree = buildTree({
    depth: takeColumn(columns, "nodes.depth"),
    frame: takeColumn(columns, "nodes.frame"),
    total: nodes.sample_ns === undefined ? takeColumn(columns, "nodes.total_ns") : scale(samples, nodes.sample_ns),
    samples,
    cut: new Map(Object.entries(nodes.cut ?? {}).map(([node, count]) => [Number(node), count])),
    frames: {
      name: stringsOf("frames.name"),
      binary: stringsOf("frames.binary"),
      file: stringsOf("frames.file"),
      line: numbersOf("frames.line"),
      kind: numbersOf("frames.kind"),
      unnamed: new Map(Object.entries(frames.unnamed ?? {}).map(([frame, { reason, build_id: id }]) => [Number(frame), { reason, buildId: stringOf(id) }])),
    },
  });
  if (tree.length !== answer.shown_nodes || tree.total[0] !== (answer.path_total_ns ?? answer.total_ns)) {
    throw new ColumnsError("the columns of the server's answer do not belong to its head");
  }
  return {
    totalNs: answer.total_ns,
    samples: answer.samples,
    userNs: answer.total_ns - answer.kernel_only_ns,
    completeNs: answer.complete_ns - answer.kernel_only_ns,
    unnamedNs: answer.unnamed_ns,
    tree,
    incomplete: answer.incomplete ?? [],
    lacksAddresses: answer.lacks_addresses ?? false,
  };
}

export interface FlameGraphOptions {
  /** Request only the subtree below this path; absent: the whole tree. */
  path?: FlamePath;
  /** Absent: the server chooses. */
  nodesMax?: number;
}

export async function fetchFlameGraph(selection: Selection, { path, nodesMax }: FlameGraphOptions, asking?: Asking): Promise<FlameGraph> {
  const names = path && JSON.stringify(path.map(stepName));
  const parameters = { ...shared(selection), path: names, max_nodes: nodesMax };
  return readFlameGraph(await getBytes("flamegraph", parameters, COLUMNS, asking));
}

export interface TopOptions {
  sort: SortKey;
  search: string;
  limit: number;
  offset: number;
}

export function fetchTop(selection: Selection, options: TopOptions, asking?: Asking): Promise<TopAnswer> {
  const { sort, search, limit, offset } = options;
  return getJson("top", { ...shared(selection), sort, search: search || undefined, limit, offset: offset || undefined }, asking);
}

/** Rows of each list in the panels. */
const STACK_ROWS = 50;

export function fetchStacks(selection: Selection, asking?: Asking): Promise<StacksAnswer> {
  return getJson("stacks", { ...shared(selection), limit: STACK_ROWS }, asking);
}

export function fetchUnknown(selection: Selection, asking?: Asking): Promise<UnknownAnswer> {
  return getJson("unknown", { ...shared(selection), limit: STACK_ROWS }, asking);
}

/** The identity of a function in the graph and the table. */
export interface FunctionId {
  name: string;
  binary: string;
  file: string;
}

export function fetchLines(selection: Selection, { name, binary, file }: FunctionId, asking?: Asking): Promise<LinesAnswer> {
  return getJson("lines", { ...shared(selection), function: name, binary, file }, asking);
}

export function fetchNodes(selection: Selection, asking?: Asking): Promise<NodesAnswer> {
  return getJson("nodes", shared(selection), asking);
}

/** Leaves out the selection's matchers of processes, which the server refuses here. */
export function fetchContainers({ query, range }: Selection, options: { sort: ContainerSort; limit: number }, asking?: Asking): Promise<ContainersAnswer> {
  const { matchers } = parseSelector(query);
  const ofContainers = matchers ? formatSelector(splitMatchers(matchers).ofContainers) : query;
  return getJson("containers", { ...shared({ query: ofContainers, range }), ...options }, asking);
}

export function fetchStatus(asking?: Asking): Promise<StatusAnswer> {
  return getJson("status", {}, asking);
}

/** Builds the URL of the same selection in another format, for links. */
export function linkTo(route: "pprof" | "flamegraph.svg" | "folded", selection: Selection): string {
  return writeUrl(route, shared(selection));
}
