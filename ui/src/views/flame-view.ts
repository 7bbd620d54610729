// The flame graph's animation: the visible span, transitions between spans, and at most one
// painting per animation frame.
import { createBoxes, layOutBoxes, interpolateSpans, panSpan, spanOf, zoomSpan, type Span } from "../lib/flame-layout.ts";
import { findNodeAt, type FlameTree } from "../lib/flame-tree.ts";
import type { FrameColours, Theme } from "../lib/colour.ts";
import type { Matches } from "../lib/search.ts";
import { markPainted } from "../lib/timing.ts";
import type { Painter } from "./flame-painter.ts";

const ZOOM_MS = 180;

/**
 * Boxes narrower than this, in CSS pixels, are merged into runs; the second value applies during
 * movements.
 */
const BOX_WIDTH_MIN = 0.75;
const MOVING_BOX_WIDTH_MIN = 2;

/** Delay after the last movement before the full painting. */
const FULL_PAINT_DELAY_MS = 120;

export interface FlameScene {
  tree: FlameTree;
  colourOf: FrameColours["colourOf"];
  matches: Matches | null;
  theme: Theme;
  zoomed: number;
}

/** Marked nodes, or -1. */
export interface MarkedNodes {
  hovered: number;
  focused: number;
}

/** Elements over the marked boxes: marking a box needs no painting of the canvas. */
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
  setScene(scene: FlameScene): void;
  setMarked(marked: MarkedNodes): void;
  /** Sets the sizes, in CSS pixels. */
  setSize(size: Size): void;
  setScroll(top: number): void;
  /**
   * Moves to a node's span; without animation for a new tree or when the user prefers reduced
   * motion.
   */
  showNode(node: number): void;
  /** Scales around a position on the canvas, in CSS pixels. */
  zoomAround(x: number, factor: number): void;
  panBy(pixels: number): void;
  /** The node at a position on the canvas; `narrow` if its box is merged into a run. */
  nodeAt(x: number, y: number): { node: number; narrow: boolean } | null;
  /** The box of a node on the canvas, also outside of the visible part. */
  boxOf(node: number): { x: number; width: number; y: number };
  destroy(): void;
}

function wantsNoMotion(): boolean {
  return window.matchMedia("(prefers-reduced-motion: reduce)").matches;
}

/** Ease-out: fast at the start, slow at the end. */
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
  let scene: FlameScene | null = null;
  let span: Span = { start: 0, end: 1 };
  let [width, height, scrollTop, rowHeight] = [0, 0, 0, 19];
  let frame = 0;
  // The tree has not been painted yet.
  let fresh = false;
  let marked: MarkedNodes = { hovered: -1, focused: -1 };
  let fullPaint: ReturnType<typeof setTimeout> | undefined;
  let moving = false;
  let motion: { from: Span; to: Span; startedMs: number } | null = null;

  function draw(nowMs: number): void {
    frame = 0;
    if (!scene || width === 0) return;
    if (motion) {
      const progress = Math.min(1, (nowMs - motion.startedMs) / ZOOM_MS);
      span = interpolateSpans(motion.from, motion.to, ease(progress));
      if (progress >= 1) motion = null;
      else request();
    }
    const rowFirst = Math.floor(scrollTop / rowHeight);
    const rowEnd = Math.ceil((scrollTop + height) / rowHeight);
    layOutBoxes(scene.tree, { span, width, rowFirst, rowEnd, widthMin: moving ? MOVING_BOX_WIDTH_MIN : BOX_WIDTH_MIN }, boxes);
    painter.paint({ ...scene, boxes, scrollTop, rowHeight, moving });
    placeMarks();
    if (fresh) markPainted();
    fresh = false;
  }

  function boxOf(node: number): { x: number; width: number; y: number } {
    if (!scene) return { x: 0, width: 0, y: 0 };
    const { tree } = scene;
    const scale = width / (span.end - span.start);
    const left = Math.max(0, (tree.start[node]! - span.start) * scale);
    const right = Math.min(width, (tree.start[node]! + tree.total[node]! - span.start) * scale);
    return { x: left, width: right - left, y: tree.depth[node]! * rowHeight - scrollTop };
  }

  function placeMarks(): void {
    const place = (element: HTMLElement, node: number): void => {
      const box = node >= 0 && scene && node < scene.tree.length ? boxOf(node) : null;
      const seen = box !== null && box.width > 0 && box.y > -rowHeight && box.y < height;
      element.hidden = !seen;
      if (seen) placeMark(element, { ...box, height: rowHeight });
    };
    place(marks.hover, marked.hovered);
    place(marks.focus, marked.focused);
  }

  /** Paints coarsely now, and fully after the last movement. */
  function move(): void {
    moving = true;
    clearTimeout(fullPaint);
    fullPaint = setTimeout(() => {
      moving = motion !== null;
      if (moving) move();
      else request();
    }, FULL_PAINT_DELAY_MS);
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
    setScene(next) {
      const other = scene?.tree !== next.tree;
      scene = next;
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
      // Setting the size clears the canvas: paint in the same frame.
      cancelAnimationFrame(frame);
      draw(performance.now());
    },
    setScroll(top) {
      scrollTop = top;
      move();
    },
    showNode(node) {
      if (!scene) return;
      const to = spanOf(scene.tree, node);
      if (wantsNoMotion()) return jump(to);
      motion = { from: span, to, startedMs: performance.now() };
      move();
    },
    zoomAround(x, factor) {
      if (!scene) return;
      const around = span.start + (x / width) * (span.end - span.start);
      jump(zoomSpan(span, factor, around, scene.tree.total[0]!));
    },
    panBy(pixels) {
      if (!scene) return;
      jump(panSpan(span, (pixels / width) * (span.end - span.start), scene.tree.total[0]!));
    },
    nodeAt(x, y) {
      if (!scene || x < 0 || x >= width) return null;
      const scale = (span.end - span.start) / width;
      const node = findNodeAt(scene.tree, span.start + x * scale, Math.floor((y + scrollTop) / rowHeight));
      if (node < 0) return null;
      return { node, narrow: scene.tree.total[node]! < BOX_WIDTH_MIN * scale };
    },
    boxOf,
    destroy() {
      clearTimeout(fullPaint);
      cancelAnimationFrame(frame);
    },
  };
}
