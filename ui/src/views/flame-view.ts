// The flame graph's moving part: which span is shown, the way from one span to
// the next, and one painting per frame of the screen however many things changed.
import { createBoxes, layOutBoxes, mixSpans, panSpan, spanOf, zoomSpan, type Span } from "../lib/flame-layout.ts";
import { findNodeAt, type FlameTree } from "../lib/flame-tree.ts";
import type { FrameColours, Theme } from "../lib/colour.ts";
import type { Matches } from "../lib/search.ts";
import { markPainted } from "../lib/timing.ts";
import type { Painter } from "./flame-painter.ts";

const ZOOM_MS = 180;

/** Boxes narrower than this are drawn as one run, in CSS pixels: when the picture stands, and while it moves. */
const BOX_WIDTH_MIN = 0.75;
const MOVING_BOX_WIDTH_MIN = 2;

/** So long after the last movement the picture is drawn in full. */
const SETTLE_MS = 120;

export interface Look {
  tree: FlameTree;
  colourOf: FrameColours["colourOf"];
  matches: Matches | null;
  theme: Theme;
  zoomed: number;
}

/** Nodes that are marked, or -1. */
export interface Marked {
  hovered: number;
  focused: number;
}

/** The elements that lie over the marked boxes: to mark a box must not cost a painting. */
export interface MarkElements {
  hover: HTMLElement;
  focus: HTMLElement;
}

export interface Size {
  width: number;
  height: number;
  rowHeight: number;
}

export interface FlameView {
  setLook(look: Look): void;
  setMarked(marked: Marked): void;
  /** All in CSS pixels. */
  setSize(size: Size): void;
  setScroll(top: number): void;
  /** Goes to a node's span; at once for another tree, or when motion is not wanted. */
  showNode(node: number): void;
  /** Scales around a point of the canvas, in CSS pixels. */
  zoomAround(x: number, factor: number): void;
  panBy(pixels: number): void;
  /** The node under a point of the canvas; `narrow` when it is too narrow to be drawn by itself. */
  nodeAt(x: number, y: number): { node: number; narrow: boolean } | null;
  /** Where a node's box is on the canvas now, also when it is outside. */
  boxOf(node: number): { x: number; width: number; y: number };
  destroy(): void;
}

function wantsNoMotion(): boolean {
  return window.matchMedia("(prefers-reduced-motion: reduce)").matches;
}

/** Starts fast and ends slowly. */
function ease(progress: number): number {
  return 1 - (1 - progress) ** 3;
}

function placeMark(element: HTMLElement, box: { x: number; y: number; width: number; height: number }): void {
  element.style.transform = `translate(${box.x}px, ${box.y}px)`;
  element.style.width = `${Math.max(3, box.width - 1)}px`;
  element.style.height = `${box.height - 1}px`;
}

export function createFlameView(painter: Painter, marks: MarkElements, onMoved: () => void): FlameView {
  const boxes = createBoxes();
  let look: Look | null = null;
  let span: Span = { start: 0, end: 1 };
  let [width, height, scrollTop, rowHeight] = [0, 0, 0, 19];
  let frame = 0;
  // The tree was not painted yet.
  let fresh = false;
  let marked: Marked = { hovered: -1, focused: -1 };
  let settle: ReturnType<typeof setTimeout> | undefined;
  let moving = false;
  let motion: { from: Span; to: Span; startedMs: number } | null = null;

  function draw(nowMs: number): void {
    frame = 0;
    if (!look || width === 0) return;
    if (motion) {
      const progress = Math.min(1, (nowMs - motion.startedMs) / ZOOM_MS);
      span = mixSpans(motion.from, motion.to, ease(progress));
      if (progress >= 1) motion = null;
      else request();
    }
    const rowFirst = Math.floor(scrollTop / rowHeight);
    const rowEnd = Math.ceil((scrollTop + height) / rowHeight);
    layOutBoxes(look.tree, { span, width, rowFirst, rowEnd, widthMin: moving ? MOVING_BOX_WIDTH_MIN : BOX_WIDTH_MIN }, boxes);
    painter.paint({ ...look, boxes, scrollTop, rowHeight, moving });
    placeMarks();
    if (fresh) markPainted();
    fresh = false;
  }

  function boxOf(node: number): { x: number; width: number; y: number } {
    if (!look) return { x: 0, width: 0, y: 0 };
    const { tree } = look;
    const scale = width / (span.end - span.start);
    const left = Math.max(0, (tree.start[node]! - span.start) * scale);
    const right = Math.min(width, (tree.start[node]! + tree.total[node]! - span.start) * scale);
    return { x: left, width: right - left, y: tree.depth[node]! * rowHeight - scrollTop };
  }

  function placeMarks(): void {
    const place = (element: HTMLElement, node: number): void => {
      const box = node >= 0 && look && node < look.tree.length ? boxOf(node) : null;
      const seen = box !== null && box.width > 0 && box.y > -rowHeight && box.y < height;
      element.hidden = !seen;
      if (seen) placeMark(element, { ...box, height: rowHeight });
    };
    place(marks.hover, marked.hovered);
    place(marks.focus, marked.focused);
  }

  /** Draws coarsely from now on, and in full once nothing has moved for a moment. */
  function move(): void {
    moving = true;
    clearTimeout(settle);
    settle = setTimeout(() => {
      moving = motion !== null;
      if (moving) move();
      else request();
    }, SETTLE_MS);
    request();
  }

  function request(): void {
    if (frame === 0) frame = requestAnimationFrame(draw);
  }

  function jump(to: Span): void {
    motion = null;
    span = to;
    move();
    onMoved();
  }

  return {
    setLook(next) {
      const other = look?.tree !== next.tree;
      look = next;
      if (other) {
        motion = null;
        fresh = true;
        span = spanOf(next.tree, next.zoomed);
      }
      request();
    },
    setMarked(next) {
      marked = next;
      placeMarks();
    },
    setSize(size) {
      ({ width, height, rowHeight } = size);
      painter.resize(width, height);
      // Setting a canvas's size empties it: paint in the same frame.
      cancelAnimationFrame(frame);
      draw(performance.now());
    },
    setScroll(top) {
      scrollTop = top;
      move();
    },
    showNode(node) {
      if (!look) return;
      const to = spanOf(look.tree, node);
      if (wantsNoMotion()) return jump(to);
      motion = { from: span, to, startedMs: performance.now() };
      move();
    },
    zoomAround(x, factor) {
      if (!look) return;
      const around = span.start + (x / width) * (span.end - span.start);
      jump(zoomSpan(span, factor, around, look.tree.total[0]!));
    },
    panBy(pixels) {
      if (!look) return;
      jump(panSpan(span, (pixels / width) * (span.end - span.start), look.tree.total[0]!));
    },
    nodeAt(x, y) {
      if (!look || x < 0 || x >= width) return null;
      const scale = (span.end - span.start) / width;
      const node = findNodeAt(look.tree, span.start + x * scale, Math.floor((y + scrollTop) / rowHeight));
      if (node < 0) return null;
      return { node, narrow: look.tree.total[node]! < BOX_WIDTH_MIN * scale };
    },
    boxOf,
    destroy() {
      clearTimeout(settle);
      cancelAnimationFrame(frame);
    },
  };
}
