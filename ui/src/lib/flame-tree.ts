// The merged call tree in columns, as it came from the server, made ready to be
// drawn: parents, ends of subtrees and offsets on the time axis are added, each
// one typed array. A node is its index; a parent is before its children.
//
// Nothing here draws, measures pixels or fetches.

export const ROOT_FRAME = -1;
/** The frame of a node that stands for children that the server left out. */
export const CUT_FRAME = -2;

export interface FrameTable {
  name: string[];
  binary: string[];
  file: string[];
  line: number[];
  kind: number[];
}

export interface FlameTree {
  length: number;
  /** Node -> index into `frames`, or one of the two above. */
  frame: Int32Array;
  depth: Uint16Array;
  parent: Int32Array;
  /** One past the last node of the subtree. */
  end: Int32Array;
  /** Nanoseconds from the root's start to the node's. */
  start: Float64Array;
  total: Float64Array;
  self: Float64Array;
  samples: Float64Array;
  /** Cut node -> number of nodes it stands for. */
  cut: ReadonlyMap<number, number>;
  frames: FrameTable;
  depthMax: number;
  /** Whether all children are in falling order of total, so that small ones can be skipped at once. */
  sorted: boolean;
}

export interface TreeColumns {
  depth: ArrayLike<number>;
  frame: ArrayLike<number>;
  total: ArrayLike<number>;
  self: ArrayLike<number>;
  samples: ArrayLike<number>;
  cut: ReadonlyMap<number, number>;
  frames: FrameTable;
}

/** Depth is kept in 16 bits; the collector walks a few thousand frames at most. */
const DEPTH_MAX = 65_535;

export class TreeError extends Error {}

function checkColumns({ depth, frame, total, self, samples, frames }: TreeColumns): void {
  const length = depth.length;
  if (length === 0) throw new TreeError("the flame graph has no root");
  if ([frame, total, self, samples].some((column) => column.length !== length)) {
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

/**
 * Builds the tree from its columns in preorder.
 * @throws TreeError when the columns cannot be a tree
 */
export function buildTree(columns: TreeColumns): FlameTree {
  checkColumns(columns);
  const length = columns.depth.length;
  const tree: FlameTree = {
    length,
    frame: new Int32Array(columns.frame),
    depth: new Uint16Array(length),
    parent: new Int32Array(length),
    end: new Int32Array(length),
    start: new Float64Array(length),
    total: toFloats(columns.total),
    self: toFloats(columns.self),
    samples: toFloats(columns.samples),
    cut: columns.cut,
    frames: columns.frames,
    depthMax: 0,
    sorted: true,
  };
  linkNodes(tree, columns.depth);
  return tree;
}

/** Fills in parents, ends and starts in one pass over the preorder. */
function linkNodes(tree: FlameTree, depths: ArrayLike<number>): void {
  const { length, frame, depth, parent, end, start, total } = tree;
  const frameCount = tree.frames.name.length;
  // The open nodes from the root down, where their next child starts, and how large the last one was.
  const open: number[] = [0];
  const next: number[] = [0];
  const last: number[] = [Infinity];
  parent[0] = -1;
  if (depths[0] !== 0) throw new TreeError("the flame graph's first node is not a root");
  for (let node = 1; node < length; node += 1) {
    const level = depths[node]!;
    if (level < 1 || level > open.length || level > DEPTH_MAX) throw new TreeError(`node ${node} has no parent`);
    if (frame[node]! >= frameCount || frame[node]! < CUT_FRAME) throw new TreeError(`node ${node} has no frame`);
    while (open.length > level) end[open.pop()!] = node;
    const above = level - 1;
    depth[node] = level;
    parent[node] = open[above]!;
    start[node] = next[above]!;
    next[above] = next[above]! + total[node]!;
    if (total[node]! > last[above]!) tree.sorted = false;
    last[above] = total[node]!;
    open[level] = node;
    next[level] = start[node]!;
    last[level] = Infinity;
    if (level > tree.depthMax) tree.depthMax = level;
  }
  while (open.length > 0) end[open.pop()!] = length;
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
