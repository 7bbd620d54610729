// Folds direct recursion: a chain of calls from a function to itself becomes one box. The callees
// of all levels are merged below that box. All sums stay exact: the box has the chain's total time
// and the sum of its levels' self times. Recursion through several functions is not folded.
//
// The work is linear in the number of nodes.
import { buildTree, CUT_FRAME, nameOf, type FlameTree } from "./flame-tree.ts";

export interface FoldedTree {
  tree: FlameTree;
  /**
   * Folded node -> one of the nodes merged into it: the outermost, or for cut nodes the largest.
   */
  origin: Int32Array;
  /** Node of the unfolded tree -> the folded node that contains it. */
  image: Int32Array;
}

/** The number of recursion levels in a box: 1 if it is not folded. */
export function levelsOf(tree: FlameTree, node: number): number {
  return tree.levels?.[node] ?? 1;
}

/** The suffix of a folded box's name. */
export function levelSuffix(tree: FlameTree, node: number): string {
  const levels = levelsOf(tree, node);
  return levels > 1 ? ` ×${levels}` : "";
}

/** The longest chain of direct recursion in a tree. */
export interface RecursionChain {
  levels: number;
  name: string;
}

/** Returns null if no function calls itself directly. */
export function findLongestChain(tree: FlameTree): RecursionChain | null {
  const { length, frame, parent } = tree;
  const levels = new Uint16Array(length);
  let longest = 0;
  for (let node = 1; node < length; node += 1) {
    const above = parent[node]!;
    if (frame[node] !== frame[above] || frame[node]! < 0) continue;
    levels[node] = levels[above]! + 1;
    if (levels[node]! > levels[longest]!) longest = node;
  }
  return longest === 0 ? null : { levels: levels[longest]! + 1, name: nameOf(tree, longest) };
}

/** Marks the nodes that folding may merge with others: the chains, and all nodes below them. */
function markMerging(tree: FlameTree): { merging: Uint8Array; count: number } {
  const { length, frame, parent } = tree;
  const merging = new Uint8Array(length);
  for (let node = 1; node < length; node += 1) {
    const above = parent[node]!;
    if (frame[node] === frame[above] && frame[node]! >= 0) merging[node] = merging[above] = 1;
  }
  let count = 0;
  for (let node = 1; node < length; node += 1) {
    if (merging[parent[node]!] === 1) merging[node] = 1;
    count += merging[node]!;
  }
  return { merging, count };
}

/**
 * Index of nodes by parent and frame. Open addressing, since a Map with a million entries is too
 * slow.
 */
function createIndex(count: number, parent: Int32Array, frame: Int32Array): { find(above: number, wanted: number): number; add(node: number): void } {
  const bits = Math.ceil(Math.log2(Math.max(2, count * 2)));
  const slots = new Int32Array(2 ** bits).fill(-1);
  const last = slots.length - 1;
  const slotOf = (above: number, wanted: number): number => {
    const hash = Math.imul(Math.imul(above, 0x9e3779b1) ^ (wanted + 3), 0x85ebca6b);
    return (hash ^ (hash >>> 15)) & last;
  };
  return {
    find(above, wanted) {
      for (let at = slotOf(above, wanted); ; at = (at + 1) & last) {
        const node = slots[at]!;
        if (node < 0 || (parent[node] === above && frame[node] === wanted)) return node;
      }
    },
    add(node) {
      let at = slotOf(parent[node]!, frame[node]!);
      while (slots[at]! >= 0) at = (at + 1) & last;
      slots[at] = node;
    },
  };
}

/** The folded nodes, in the order of their first node in the unfolded tree. */
interface Merged {
  count: number;
  parent: Int32Array;
  frame: Int32Array;
  total: Float64Array;
  samples: Float64Array;
  levels: Int32Array;
  origin: Int32Array;
  cut: Map<number, number>;
  image: Int32Array;
}

function mergeNodes(tree: FlameTree, merging: Uint8Array, mergingCount: number): Merged {
  const { length, frame, parent, total, samples } = tree;
  const merged: Merged = {
    count: 1,
    parent: new Int32Array(length),
    frame: new Int32Array(length),
    total: new Float64Array(length),
    samples: new Float64Array(length),
    levels: new Int32Array(length).fill(1),
    origin: new Int32Array(length),
    cut: new Map(),
    image: new Int32Array(length),
  };
  const { image, levels, origin, cut } = merged;
  const index = createIndex(mergingCount, merged.parent, merged.frame);
  // Node of the unfolded tree -> its level in its chain.
  const level = new Int32Array(length).fill(1);
  merged.parent[0] = -1;
  merged.frame[0] = frame[0]!;
  merged.total[0] = total[0]!;
  merged.samples[0] = samples[0]!;
  for (let node = 1; node < length; node += 1) {
    const above = parent[node]!;
    const into = image[above]!;
    const own = frame[node]!;
    if (own >= 0 && own === frame[above]) {
      // A further level of its parent's box: the parent's total includes its time.
      image[node] = into;
      level[node] = level[above]! + 1;
      if (level[node]! > levels[into]!) levels[into] = level[node]!;
      continue;
    }
    let made = merging[above] === 1 ? index.find(into, own) : -1;
    if (made < 0) {
      made = merged.count;
      merged.count += 1;
      merged.parent[made] = into;
      merged.frame[made] = own;
      origin[made] = node;
      if (merging[above] === 1) index.add(made);
    }
    image[node] = made;
    merged.total[made] = merged.total[made]! + total[node]!;
    merged.samples[made] = merged.samples[made]! + samples[node]!;
    if (own === CUT_FRAME) cut.set(made, (cut.get(made) ?? 0) + (tree.cut.get(node) ?? 0));
    if (isBetterOrigin(tree, node, origin[made]!)) origin[made] = node;
  }
  return merged;
}

/**
 * Of cut nodes the largest is best, since fetching it brings the most; of other nodes the
 * outermost, since its path is the shortest.
 */
function isBetterOrigin({ frame, depth, total }: FlameTree, node: number, than: number): boolean {
  if (frame[node] !== CUT_FRAME && depth[node] !== depth[than]) return depth[node]! < depth[than]!;
  return total[node]! > total[than]!;
}

/**
 * Sorts each node's children by total, largest first. The children of `node` are at `starts[node]`
 * to `starts[node + 1]`.
 */
function sortChildren({ count, parent, total }: Merged): { starts: Int32Array; children: Int32Array } {
  const starts = new Int32Array(count + 2);
  for (let node = 1; node < count; node += 1) starts[parent[node]! + 2] = starts[parent[node]! + 2]! + 1;
  for (let at = 2; at < starts.length; at += 1) starts[at] = starts[at]! + starts[at - 1]!;
  const children = new Int32Array(count - 1);
  for (let node = 1; node < count; node += 1) {
    const at = starts[parent[node]! + 1]!;
    children[at] = node;
    starts[parent[node]! + 1] = at + 1;
  }
  for (let node = 0; node < count; node += 1) {
    const [first, end] = [starts[node]!, starts[node + 1]!];
    let at = first + 1;
    while (at < end && total[children[at]!]! <= total[children[at - 1]!]!) at += 1;
    // Sort only where merging changed the order; other siblings are sorted already.
    if (at < end) children.subarray(first, end).sort((a, b) => total[b]! - total[a]! || a - b);
  }
  return { starts, children };
}

/** Returns the nodes in preorder, and the depth at each position. */
function orderNodes(merged: Merged): { order: Int32Array; depth: Int32Array } {
  const { count, parent } = merged;
  const { starts, children } = sortChildren(merged);
  // Parents have smaller indexes than their children.
  const depthOf = new Int32Array(count);
  for (let node = 1; node < count; node += 1) depthOf[node] = depthOf[parent[node]!]! + 1;
  const order = new Int32Array(count);
  const pending = [0];
  for (let at = 0; at < count; at += 1) {
    const node = pending.pop()!;
    order[at] = node;
    for (let child = starts[node + 1]! - 1; child >= starts[node]!; child -= 1) pending.push(children[child]!);
  }
  return { order, depth: order.map((node) => depthOf[node]!) };
}

/** Folds all chains of direct recursion. Returns null if there are none. */
export function foldRecursion(tree: FlameTree): FoldedTree | null {
  const { merging, count } = markMerging(tree);
  if (count === 0) return null;
  const merged = mergeNodes(tree, merging, count);
  const { order, depth } = orderNodes(merged);
  const place = new Int32Array(merged.count);
  order.forEach((node, at) => (place[node] = at));
  const inOrder = <T extends Int32Array | Float64Array>(column: T): T => {
    const ordered = new (column.constructor as new (length: number) => T)(merged.count);
    for (let at = 0; at < merged.count; at += 1) ordered[at] = column[order[at]!]!;
    return ordered;
  };
  const folded = buildTree({
    depth,
    frame: inOrder(merged.frame),
    total: inOrder(merged.total),
    samples: inOrder(merged.samples),
    cut: new Map([...merged.cut].map(([node, hidden]) => [place[node]!, hidden])),
    frames: tree.frames,
  });
  return {
    tree: { ...folded, levels: inOrder(merged.levels) },
    origin: inOrder(merged.origin),
    image: merged.image.map((node) => place[node]!),
  };
}
