// The merged call tree in columns, as it came from the server, made ready to be
// drawn: parents, ends of subtrees and offsets on the time axis are added, each
// one typed array. A node is its index; a parent is before its children.
//
// Nothing here draws, measures pixels or fetches.

export const ROOT_FRAME = -1;
/** The frame of a node that stands for children that the server left out. */
export const CUT_FRAME = -2;

/** Why a frame has no name, and the build id of its file, empty if it has none. */
export interface Unnamed {
  reason: string;
  buildId: string;
}

export interface FrameTable {
  name: string[];
  binary: string[];
  file: string[];
  line: number[];
  kind: number[];
  /** Of frames without a name, by their index. */
  unnamed: ReadonlyMap<number, Unnamed>;
}

/** What depths and totals alone tell of a tree. */
export interface Links {
  depth: Uint16Array;
  parent: Int32Array;
  /** One past the last node of the subtree. */
  end: Int32Array;
  /** Nanoseconds from the root's start to the node's. */
  start: Float64Array;
  /** Nanoseconds of the node's own: its total without its children's. */
  self: Float64Array;
  depthMax: number;
  /** Whether all children are in falling order of total, so that small ones can be skipped at once. */
  sorted: boolean;
}

export interface FlameTree extends Links {
  length: number;
  /** Node -> index into `frames`, or one of the two above. */
  frame: Int32Array;
  total: Float64Array;
  samples: Float64Array;
  /** Cut node -> number of nodes it stands for. */
  cut: ReadonlyMap<number, number>;
  frames: FrameTable;
  /** Node -> how many levels of its function were folded into it at most; null in a tree that was not folded. */
  levels: Int32Array | null;
}

export interface TreeColumns {
  depth: ArrayLike<number>;
  frame: ArrayLike<number>;
  /** Nanoseconds with all below. */
  total: ArrayLike<number>;
  samples: ArrayLike<number>;
  cut: ReadonlyMap<number, number>;
  frames: FrameTable;
}

/** Depth is kept in 16 bits; the collector walks a few thousand frames at most. */
const DEPTH_MAX = 65_535;

export class TreeError extends Error {}

function checkColumns({ depth, frame, total, samples, frames }: TreeColumns): void {
  const length = depth.length;
  if (length === 0) throw new TreeError("the flame graph has no root");
  if ([frame, total, samples].some((column) => column.length !== length)) {
    throw new TreeError("the flame graph's columns differ in length");
  }
  const frameCount = frames.name.length;
  if ([frames.binary, frames.file, frames.line, frames.kind].some((column) => column.length !== frameCount)) {
    throw new TreeError("the frame table's columns differ in length");
  }
}

function toFloats(column: ArrayLike<number>): Float64Array {
  return column instanceof Float64Array ? column : new Float64Array(column);
}

function toInts(column: ArrayLike<number>): Int32Array {
  return column instanceof Int32Array ? column : new Int32Array(column);
}

function checkFrames(frame: Int32Array, frameCount: number): void {
  for (let node = 1; node < frame.length; node += 1) {
    if (frame[node]! >= frameCount || frame[node]! < CUT_FRAME) throw new TreeError(`node ${node} has no frame`);
  }
}

/**
 * Builds the tree from its columns in preorder. Columns that are typed arrays are
 * taken as they are, not copied; `links` are those of the same columns, when known.
 * @throws TreeError when the columns cannot be a tree
 */
export function buildTree(columns: TreeColumns, links = linkNodes(columns.depth, columns.total)): FlameTree {
  checkColumns(columns);
  if (links instanceof TreeError) throw links;
  const frame = toInts(columns.frame);
  checkFrames(frame, columns.frames.name.length);
  return {
    ...links,
    length: frame.length,
    frame,
    total: toFloats(columns.total),
    samples: toFloats(columns.samples),
    cut: columns.cut,
    frames: columns.frames,
    levels: null,
  };
}

/** The deepest level, at least 0 and at most what is kept of it. */
function findDepthMax(depths: Int32Array): number {
  let deepest = 0;
  for (let node = 0; node < depths.length; node += 1) if (depths[node]! > deepest) deepest = depths[node]!;
  return Math.min(deepest, DEPTH_MAX);
}

/** Links nodes in one pass over the preorder. An error, when the depths cannot be a tree's, is for `buildTree` to throw. */
export function linkNodes(depthColumn: ArrayLike<number>, totalColumn: ArrayLike<number>): Links | TreeError {
  const depths = toInts(depthColumn);
  const total = toFloats(totalColumn);
  const length = Math.min(depths.length, total.length);
  if (length > 0 && depths[0] !== 0) return new TreeError("the flame graph's first node is not a root");
  const depthMax = findDepthMax(depths);
  const links: Links = {
    depth: new Uint16Array(length),
    parent: new Int32Array(length),
    end: new Int32Array(length),
    start: new Float64Array(length),
    self: new Float64Array(length),
    depthMax,
    sorted: true,
  };
  const { depth, parent, end, start, self } = links;
  // By level, the open nodes from the root down: where their next child starts, and how large the last one was.
  const open = new Int32Array(depthMax + 1);
  const next = new Float64Array(depthMax + 1);
  const last = new Float64Array(depthMax + 1).fill(Infinity, 0, 1);
  let deepest = 0;
  for (let node = 1; node <= length; node += 1) {
    // Behind the last node, all that is still open ends.
    const level = node < length ? depths[node]! : 0;
    if ((level < 1 && node < length) || level > deepest + 1 || level > depthMax) return new TreeError(`node ${node} has no parent`);
    for (; deepest >= level; deepest -= 1) {
      const closed = open[deepest]!;
      end[closed] = node;
      self[closed] = start[closed]! + total[closed]! - next[deepest]!;
    }
    if (node === length) break;
    const above = level - 1;
    const from = next[above]!;
    const duration = total[node]!;
    depth[node] = level;
    parent[node] = open[above]!;
    start[node] = from;
    next[above] = from + duration;
    if (duration > last[above]!) links.sorted = false;
    last[above] = duration;
    open[level] = node;
    next[level] = from;
    last[level] = Infinity;
    deepest = level;
  }
  if (length > 0) parent[0] = -1;
  return links;
}

/** Calls `visit` for each child of a node, in order. */
export function visitChildren(tree: FlameTree, node: number, visit: (child: number) => void): void {
  for (let child = node + 1; child < tree.end[node]!; child = tree.end[child]!) visit(child);
}

export function listChildren(tree: FlameTree, node: number): number[] {
  const children: number[] = [];
  visitChildren(tree, node, (child) => children.push(child));
  return children;
}

/** The nodes from the root to a node, both included. */
export function listAncestors(tree: FlameTree, node: number): number[] {
  const nodes: number[] = [];
  for (let at = node; at >= 0; at = tree.parent[at]!) nodes.push(at);
  return nodes.reverse();
}

/** The deepest node that covers a point of the time axis, no deeper than `depth`; -1 when that row is empty there. */
export function findNodeAt(tree: FlameTree, offset: number, depth: number): number {
  if (offset < 0 || offset >= tree.total[0]!) return -1;
  // Starts never fall along the preorder, so the last node that starts at or
  // before the point is the point's deepest node, or lies left of it below one.
  let low = 0;
  let high = tree.length;
  while (high - low > 1) {
    const middle = (low + high) >>> 1;
    if (tree.start[middle]! <= offset) low = middle;
    else high = middle;
  }
  let node = low;
  while (node > 0 && offset >= tree.start[node]! + tree.total[node]!) node = tree.parent[node]!;
  if (tree.depth[node]! < depth) return -1;
  while (tree.depth[node]! > depth) node = tree.parent[node]!;
  return node;
}

/** The name of a node, as paths and people use it. */
export function nameOf(tree: FlameTree, node: number): string {
  const frame = tree.frame[node]!;
  if (frame === ROOT_FRAME) return "all";
  if (frame === CUT_FRAME) return "smaller functions";
  return tree.frames.name[frame]!;
}

/** Whether two frames are one: by name, binary, file and kind, never by line. */
export function frameKey(frames: FrameTable, frame: number): string {
  return `${frames.kind[frame]!}\u0000${frames.name[frame]!}\u0000${frames.binary[frame]!}\u0000${frames.file[frame]!}`;
}
