// Computes the visible boxes of a tree, in pixels, from the visible part of the time axis and the
// size of the canvas. The work is proportional to the number of visible boxes, not to the size of
// the tree.
//
// A binary search finds the first visible node. A subtree narrower than 0.75 px (2 px during a
// movement) is skipped, and drawn with its smaller siblings as one run.
import type { FlameTree } from "./flame-tree.ts";

/** The visible part of the time axis, in nanoseconds from the root's start. */
export interface Span {
  start: number;
  end: number;
}

export interface Viewport {
  span: Span;
  /** CSS pixels. */
  width: number;
  /** The visible rows: the first, and one past the last. */
  rowFirst: number;
  rowEnd: number;
  /** Boxes narrower than this, in CSS pixels, are merged into runs. */
  widthMin: number;
}

/** The `node` of a box that stands for a run of narrow neighbours. */
export const SMALL_RUN = -1;

/**
 * Runs with a smaller gap, in CSS pixels, are merged: the gap comes from rounding to 32-bit floats.
 */
const TOUCHING = 0.01;

/** Boxes in columns; the arrays are reused from frame to frame. */
export interface Boxes {
  count: number;
  node: Int32Array;
  /** The nodes of a run, with all their descendants: the first, and one past the last. */
  runFirst: Int32Array;
  runEnd: Int32Array;
  row: Uint16Array;
  x: Float32Array;
  width: Float32Array;
}

export function createBoxes(capacity = 4096): Boxes {
  return {
    count: 0,
    node: new Int32Array(capacity),
    runFirst: new Int32Array(capacity),
    runEnd: new Int32Array(capacity),
    row: new Uint16Array(capacity),
    x: new Float32Array(capacity),
    width: new Float32Array(capacity),
  };
}

function growBoxes(boxes: Boxes): void {
  const capacity = boxes.node.length * 2;
  const grow = <T extends Int32Array | Uint16Array | Float32Array>(old: T): T => {
    const larger = new (old.constructor as new (length: number) => T)(capacity);
    larger.set(old);
    return larger;
  };
  boxes.node = grow(boxes.node);
  boxes.runFirst = grow(boxes.runFirst);
  boxes.runEnd = grow(boxes.runEnd);
  boxes.row = grow(boxes.row);
  boxes.x = grow(boxes.x);
  boxes.width = grow(boxes.width);
}

interface Box {
  node: number;
  row: number;
  from: number;
  to: number;
  run?: { first: number; end: number };
}

/** Adds a box, clipped to the canvas, or nothing if it lies outside. */
function addBox(boxes: Boxes, view: Viewport, { node, row, from, to, run }: Box): void {
  const scale = view.width / (view.span.end - view.span.start);
  const left = Math.max(0, (from - view.span.start) * scale);
  const right = Math.min(view.width, (to - view.span.start) * scale);
  if (right <= left) return;
  const last = boxes.count - 1;
  if (node === SMALL_RUN && last >= 0 && boxes.node[last] === SMALL_RUN && boxes.row[last] === row && left <= boxes.x[last]! + boxes.width[last]! + TOUCHING) {
    boxes.width[last] = right - boxes.x[last]!;
    boxes.runEnd[last] = run!.end;
    return;
  }
  if (boxes.count === boxes.node.length) growBoxes(boxes);
  const at = boxes.count;
  boxes.node[at] = node;
  if (run) [boxes.runFirst[at], boxes.runEnd[at]] = [run.first, run.end];
  boxes.row[at] = row;
  boxes.x[at] = left;
  boxes.width[at] = right - left;
  boxes.count = at + 1;
}

/** The first node in preorder that starts after an offset. */
function findFirstAfter(tree: FlameTree, offset: number): number {
  let low = 0;
  let high = tree.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (tree.start[middle]! <= offset) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Fills `boxes` with the visible boxes, in preorder. */
export function layOutBoxes(tree: FlameTree, view: Viewport, boxes: Boxes): Boxes {
  boxes.count = 0;
  const length = view.span.end - view.span.start;
  if (!(length > 0) || view.width <= 0 || tree.total[0]! <= 0) return boxes;
  const durationMin = (view.widthMin * length) / view.width;
  const { start, total, end, parent, depth, self } = tree;

  // Nodes that start left of the span and extend into it form one chain of ancestors.
  let first = findFirstAfter(tree, view.span.start);
  const chain: number[] = [];
  let reaching = first - 1;
  while (reaching > 0 && start[reaching]! + total[reaching]! <= view.span.start) reaching = parent[reaching]!;
  for (let node = reaching; node >= 0; node = parent[node]!) chain.push(node);
  for (let at = chain.length - 1; at >= 0; at -= 1) {
    const node = chain[at]!;
    const row = depth[node]!;
    if (row >= view.rowEnd) break;
    if (row >= view.rowFirst) addBox(boxes, view, { node, row, from: start[node]!, to: start[node]! + total[node]! });
  }
  if (reaching >= 0 && depth[reaching]! + 1 >= view.rowEnd) first = Math.max(first, end[reaching]!);

  let node = first;
  while (node < tree.length && start[node]! < view.span.end) {
    const row = depth[node]!;
    if (row >= view.rowEnd) {
      node = end[parent[node]!]!;
      continue;
    }
    const duration = total[node]!;
    if (duration < durationMin) {
      // If the children are sorted, the following siblings are at most as wide as this one.
      const above = parent[node]!;
      const to = tree.sorted ? start[above]! + total[above]! - self[above]! : start[node]! + duration;
      const after = tree.sorted ? end[above]! : end[node]!;
      if (row >= view.rowFirst) addBox(boxes, view, { node: SMALL_RUN, row, from: start[node]!, to, run: { first: node, end: after } });
      node = after;
      continue;
    }
    if (row >= view.rowFirst) addBox(boxes, view, { node, row, from: start[node]!, to: start[node]! + duration });
    node += 1;
  }
  return boxes;
}

export function spanOf(tree: FlameTree, node: number): Span {
  return { start: tree.start[node]!, end: tree.start[node]! + tree.total[node]! };
}

/** Scales a span around a point. The result stays within the tree and is at least 1 ns long. */
export function zoomSpan(span: Span, factor: number, around: number, total: number): Span {
  const length = Math.min(total, Math.max(1, (span.end - span.start) * factor));
  const share = (around - span.start) / (span.end - span.start);
  return clampSpan({ start: around - share * length, end: around + (1 - share) * length }, total);
}

/** Moves a span within the tree. */
export function panSpan(span: Span, by: number, total: number): Span {
  return clampSpan({ start: span.start + by, end: span.end + by }, total);
}

function clampSpan(span: Span, total: number): Span {
  const length = Math.min(total, span.end - span.start);
  const start = Math.min(Math.max(0, span.start), total - length);
  return { start, end: start + length };
}

/** Interpolates between two spans, `progress` from 0 to 1. */
export function interpolateSpans(from: Span, to: Span, progress: number): Span {
  const mix = (a: number, b: number): number => a + (b - a) * progress;
  return { start: mix(from.start, to.start), end: mix(from.end, to.end) };
}

/** The deepest node that covers a whole span; the breadcrumbs show its path after panning. */
export function findCovering(tree: FlameTree, span: Span): number {
  let node = 0;
  const middle = (span.start + span.end) / 2;
  // Tolerance for rounding, so that a difference of less than a pixel does not select the parent.
  const slack = (span.end - span.start) * 1e-6;
  let child = 1;
  while (child < tree.end[node]!) {
    const childEnd = tree.start[child]! + tree.total[child]!;
    if (tree.start[child]! <= middle && middle < childEnd) {
      if (tree.start[child]! > span.start + slack || childEnd < span.end - slack) break;
      node = child;
      child = node + 1;
    } else {
      child = tree.end[child]!;
    }
  }
  return node;
}
