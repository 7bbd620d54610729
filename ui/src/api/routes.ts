// The routes that the page asks, one function each.
import { buildTree, linkNodes, type FlameTree } from "../lib/flame-tree.ts";
import { createColumnReader, type Column, type ColumnKind } from "../lib/column-reader.ts";
import { stepName, type FlamePath } from "../lib/flame-path.ts";
import { markBuilt, markReceived } from "../lib/timing.ts";
import type { RangeMs } from "../lib/time-range.ts";
import type { SortKey } from "../lib/url-state.ts";
import { getJson, writeUrl, type BodyReader, type Parameters } from "./request.ts";
import type { FlameGraphAnswer, LinesAnswer, NodesAnswer, SeriesAnswer, StacksAnswer, TimeSeriesAnswer, TopAnswer, UnknownAnswer } from "./shapes.ts";

/** What a query is about: which series, and when. */
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
  /** A multiple of the 10 s windows; the server chooses when absent. */
  stepMs?: number;
}

export function fetchTimeSeries(selection: Selection, options: TimeSeriesOptions, signal?: AbortSignal): Promise<TimeSeriesAnswer> {
  const step = options.stepMs === undefined ? undefined : `${options.stepMs / 1000}s`;
  return getJson("timeseries", { ...shared(selection), by: options.by || undefined, unit: "cores", limit: options.limit, step }, signal);
}

/** The flame graph without its columns, and the tree made of them. */
export interface FlameGraph {
  totalNs: number;
  samples: number;
  /** Of what has a user stack: how much there is, and how much of it is complete. */
  userNs: number;
  completeNs: number;
  /** What has a frame without a name. */
  unnamedNs: number;
  nodeCount: number;
  tree: FlameTree;
}

/** The tree works out `self_ns` by itself, in less time than it takes to read it. */
const COLUMN_KINDS = { depth: "int", frame: "int", total_ns: "float", self_ns: "skip", samples: "float" } as const satisfies Record<string, ColumnKind>;

function toFlameGraph(answer: FlameGraphAnswer, columns: ReadonlyMap<string, Column> = new Map(), links?: ReturnType<typeof linkNodes>): FlameGraph {
  const { strings, frames, nodes } = answer;
  const look = (indexes: number[]): string[] => indexes.map((index) => strings[index] ?? "");
  const column = (name: "depth" | "frame" | "total_ns" | "samples"): ArrayLike<number> => columns.get(name) ?? nodes[name];
  const tree = buildTree(
    {
      depth: column("depth"),
      frame: column("frame"),
      total: column("total_ns"),
      samples: column("samples"),
      cut: new Map(Object.entries(nodes.cut ?? {}).map(([node, count]) => [Number(node), count])),
      frames: {
        name: look(frames.name),
        binary: look(frames.binary),
        file: look(frames.file),
        line: frames.line,
        kind: frames.kind,
        unnamed: new Map(Object.entries(frames.unnamed ?? {}).map(([frame, { reason, build_id: id }]) => [Number(frame), { reason, buildId: strings[id] ?? "" }])),
      },
    },
    links,
  );
  return {
    totalNs: answer.total_ns,
    samples: answer.samples,
    userNs: answer.total_ns - answer.kernel_only_ns,
    completeNs: answer.complete_ns - answer.kernel_only_ns,
    unnamedNs: answer.unnamed_ns,
    nodeCount: answer.node_count,
    tree,
  };
}

/**
 * Reads an answer while it comes: its columns straight into typed arrays, linked
 * as soon as those are there that it takes. Null when that cannot be done with it.
 */
export function createFlameGraphReader(): BodyReader<FlameGraph | null> {
  const reader = createColumnReader("nodes", COLUMN_KINDS);
  let links: ReturnType<typeof linkNodes> | undefined;
  return {
    push(chunk) {
      reader.push(chunk);
      const [depth, total] = [reader.columns.get("depth"), reader.columns.get("total_ns")];
      if (!links && depth && total) links = linkNodes(depth, total);
    },
    finish() {
      markReceived();
      const answer = reader.finish() as FlameGraphAnswer | null;
      const graph = answer && toFlameGraph(answer, reader.columns, links);
      markBuilt();
      return graph;
    },
  };
}

export interface FlameGraphOptions {
  /** The branch below this path alone; the whole tree when absent. */
  path?: FlamePath;
  /** The server's own choice when absent. */
  nodesMax?: number;
}

export async function fetchFlameGraph(selection: Selection, { path, nodesMax }: FlameGraphOptions, signal?: AbortSignal): Promise<FlameGraph> {
  const names = path && JSON.stringify(path.map(stepName));
  const parameters = { ...shared(selection), path: names, max_nodes: nodesMax };
  const graph = await getJson("flamegraph", parameters, signal, createFlameGraphReader());
  // Something on the way writes JSON in its own manner: it is asked for again, and read slowly.
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

/** Rows of each list that the panel shows. */
const STACK_ROWS = 50;

export function fetchStacks(selection: Selection, signal?: AbortSignal): Promise<StacksAnswer> {
  return getJson("stacks", { ...shared(selection), limit: STACK_ROWS }, signal);
}

export function fetchUnknown(selection: Selection, signal?: AbortSignal): Promise<UnknownAnswer> {
  return getJson("unknown", { ...shared(selection), limit: STACK_ROWS }, signal);
}

/** A function, by all that tells it from others. */
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

/** Addresses of the same selection in other forms, for links. */
export function linkTo(route: "pprof" | "flamegraph.svg" | "folded", selection: Selection): string {
  return writeUrl(route, shared(selection));
}
