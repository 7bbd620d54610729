// The merged call tree: the server's columns, and derived columns for drawing (parents, ends of
// subtrees, offsets on the time axis), each in one typed array. A node is its index; a parent comes
// before its children.
//
// No drawing, no pixels, no requests.

export const ROOT_FRAME = -1;
/** The frame of a node that stands for cut children. */
export const CUT_FRAME = -2;

/** The reason why a frame has no name, and the build id of its file, or "" if it has none. */
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
  /** Unnamed frames, by frame index. */
  unnamed: ReadonlyMap<number, Unnamed>;
}

/** The columns that follow from depths and totals. */
export interface DerivedColumns {
  depth: Uint16Array;
  parent: Int32Array;
  /** One past the last node of the subtree. */
  end: Int32Array;
  /** Offset of the node's start from the root's start, in nanoseconds. */
  start: Float64Array;
  /** Self time in nanoseconds: the total without the children's totals. */
  self: Float64Array;
  depthMax: number;
  /**
   * All children are sorted by total, largest first, so that the layout can skip the small ones at
   * once.
   */
  sorted: boolean;
}

export interface FlameTree extends DerivedColumns {
  length: number;
  /** Node -> index into `frames`, `ROOT_FRAME` or `CUT_FRAME`. */
  frame: Int32Array;
  total: Float64Array;
  samples: Float64Array;
  /** Cut node -> the number of nodes that it stands for. */
  cut: ReadonlyMap<number, number>;
  frames: FrameTable;
  /** Node -> the largest number of recursion levels folded into it; null in an unfolded tree. */
  levels: Int32Array | null;
}

export interface TreeColumns {
  depth: ArrayLike<number>;
  frame: ArrayLike<number>;
  /** Nanoseconds, including all descendants. */
  total: ArrayLike<number>;
  samples: ArrayLike<number>;
  cut: ReadonlyMap<number, number>;
  frames: FrameTable;
}

/** Depths are stored in 16 bits; the collector walks at most a few thousand frames. */
const DEPTH_MAX = 65_535;

/**
 * Nanoseconds above 2^53, the CPU time of a processor in 104 days, are rounded: a sum of a million
 * of them may be off by this share of all.
 */
const ROUNDING = 2 ** -30;

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
 * Builds a tree from columns in preorder. Typed arrays are used without a copy.
 * @throws TreeError when the columns are not a valid tree
 */
export function buildTree(columns: TreeColumns): FlameTree {
  checkColumns(columns);
  const derived = deriveColumns(columns.depth, columns.total);
  const frame = toInts(columns.frame);
  checkFrames(frame, columns.frames.name.length);
  return {
    ...derived,
    length: frame.length,
    frame,
    total: toFloats(columns.total),
    samples: toFloats(columns.samples),
    cut: columns.cut,
    frames: columns.frames,
    levels: null,
  };
}

/** The largest depth, limited to `DEPTH_MAX`. */
function findDepthMax(depths: Int32Array): number {
  let deepest = 0;
  for (let node = 0; node < depths.length; node += 1) if (depths[node]! > deepest) deepest = depths[node]!;
  return Math.min(deepest, DEPTH_MAX);
}

/** Computes the derived columns in one pass over the preorder. */
function deriveColumns(depthColumn: ArrayLike<number>, totalColumn: ArrayLike<number>): DerivedColumns {
  const depths = toInts(depthColumn);
  const total = toFloats(totalColumn);
  const length = Math.min(depths.length, total.length);
  if (length > 0 && depths[0] !== 0) throw new TreeError("the flame graph's first node is not a root");
  const depthMax = findDepthMax(depths);
  const derived: DerivedColumns = {
    depth: new Uint16Array(length),
    parent: new Int32Array(length),
    end: new Int32Array(length),
    start: new Float64Array(length),
    self: new Float64Array(length),
    depthMax,
    sorted: true,
  };
  const { depth, parent, end, start, self } = derived;
  // By level, for the open nodes from the root down: the node, the start of its next child, and the
  // total of its last child.
  const open = new Int32Array(depthMax + 1);
  const next = new Float64Array(depthMax + 1);
  const last = new Float64Array(depthMax + 1).fill(Infinity, 0, 1);
  let deepest = 0;
  for (let node = 1; node <= length; node += 1) {
    // One step past the last node closes all open nodes.
    const level = node < length ? depths[node]! : 0;
    if ((level < 1 && node < length) || level > deepest + 1 || level > depthMax) throw new TreeError(`node ${node} has no parent`);
    for (; deepest >= level; deepest -= 1) {
      const closed = open[deepest]!;
      end[closed] = node;
      self[closed] = start[closed]! + total[closed]! - next[deepest]!;
      if (self[closed]! < -ROUNDING * total[0]!) throw new TreeError(`node ${closed} took less time than its callees`);
    }
    if (node === length) break;
    const above = level - 1;
    const from = next[above]!;
    const duration = total[node]!;
    depth[node] = level;
    parent[node] = open[above]!;
    start[node] = from;
    next[above] = from + duration;
    if (duration > last[above]!) derived.sorted = false;
    last[above] = duration;
    open[level] = node;
    next[level] = from;
    last[level] = Infinity;
    deepest = level;
  }
  if (length > 0) parent[0] = -1;
  return derived;
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

/** The path from the root to a node, both included. */
export function listAncestors(tree: FlameTree, node: number): number[] {
  const nodes: number[] = [];
  for (let at = node; at >= 0; at = tree.parent[at]!) nodes.push(at);
  return nodes.reverse();
}

/**
 * The deepest node at a point of the time axis, at most at level `depth`; -1 if there is no node at
 * that level.
 */
export function findNodeAt(tree: FlameTree, offset: number, depth: number): number {
  if (offset < 0 || offset >= tree.total[0]!) return -1;
  // Starts never decrease along the preorder. So the last node that starts at or before the point
  // is the deepest node there, or ends before the point and has an ancestor that is.
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

/** The name of a node in paths and on the page. */
export function nameOf(tree: FlameTree, node: number): string {
  const frame = tree.frame[node]!;
  if (frame === ROOT_FRAME) return "all";
  if (frame === CUT_FRAME) return "smaller functions";
  return tree.frames.name[frame]!;
}

/** The identity of a frame: name, binary, file and kind, not the line. */
export function frameKey(frames: FrameTable, frame: number): string {
  return `${frames.kind[frame]!}\u0000${frames.name[frame]!}\u0000${frames.binary[frame]!}\u0000${frames.file[frame]!}`;
}
