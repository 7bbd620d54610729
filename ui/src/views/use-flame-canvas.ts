// The flame graph's canvas in its scroller: creation, resizing, and mouse, pen and touch input.
import type { RefObject } from "preact";
import { useEffect, useLayoutEffect, useMemo, useRef } from "preact/hooks";
import { createPainter, ROW_HEIGHT_REM } from "./flame-painter.ts";
import { createFlameView, type FlameView } from "./flame-view.ts";
import { readRem } from "./rem.ts";

/** The height of a row, in CSS pixels. */
export function readRowHeight(): number {
  return ROW_HEIGHT_REM * readRem();
}

/** A box and the pointer's position in the window. */
export interface BoxAnchor {
  node: number;
  x: number;
  y: number;
  /** The box is merged into a run of narrow boxes. */
  narrow: boolean;
}

export interface CanvasRefs {
  scroller: RefObject<HTMLDivElement | null>;
  canvas: RefObject<HTMLCanvasElement | null>;
  /** The marks over the hovered box and over the keyboard's box. */
  hoverMark: RefObject<HTMLDivElement | null>;
  focusMark: RefObject<HTMLDivElement | null>;
  view: RefObject<FlameView | null>;
}

/** Creates the view when the canvas is mounted, and updates its size. */
export function useFlameCanvas(onMoved: () => void): CanvasRefs {
  const scroller = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const hoverMark = useRef<HTMLDivElement>(null);
  const focusMark = useRef<HTMLDivElement>(null);
  const view = useRef<FlameView | null>(null);
  useLayoutEffect(() => {
    const painter = createPainter(canvas.current!);
    if (!painter) return;
    view.current = createFlameView(painter, { hover: hoverMark.current!, focus: focusMark.current! }, onMoved);
    const element = scroller.current!;
    const measure = (): void =>
      view.current?.setSize({ width: element.clientWidth, height: element.clientHeight, rowHeight: readRowHeight() });
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    return () => {
      observer.disconnect();
      view.current?.destroy();
    };
  }, []);
  return useMemo(() => ({ scroller, canvas, hoverMark, focusMark, view }), []);
}

export function locate({ canvas, view }: CanvasRefs, event: MouseEvent): BoxAnchor | null {
  const box = canvas.current!.getBoundingClientRect();
  const found = view.current?.nodeAt(event.clientX - box.left, event.clientY - box.top);
  return found ? { ...found, x: event.clientX, y: event.clientY } : null;
}

/** Scrolls to make a row visible. */
export function revealRow({ scroller }: CanvasRefs, depth: number): void {
  const element = scroller.current!;
  const rowHeight = readRowHeight();
  const top = depth * rowHeight;
  if (top < element.scrollTop) element.scrollTop = Math.max(0, top - 2 * rowHeight);
  else if (top + rowHeight > element.scrollTop + element.clientHeight) element.scrollTop = top - element.clientHeight / 2;
}

/** The minimum distance of a drag, in CSS pixels. */
const DRAG_MIN = 4;

export interface PointerEvents {
  onHover(at: BoxAnchor | null): void;
  onClick(at: BoxAnchor | null): void;
}

export interface PointerHandlers {
  onPointerDown(event: PointerEvent): void;
  onPointerMove(event: PointerEvent): void;
  onPointerUp(event: PointerEvent): void;
  onPointerCancel(): void;
  onPointerLeave(): void;
}

/** Distinguishes clicks from drags; a drag moves the graph. */
export function usePointer(refs: CanvasRefs, { onHover, onClick }: PointerEvents): PointerHandlers {
  const drag = useRef<{ x: number; y: number; top: number; moved: boolean } | null>(null);
  return {
    onPointerDown(event) {
      if (event.button !== 0) return;
      drag.current = { x: event.clientX, y: event.clientY, top: refs.scroller.current!.scrollTop, moved: false };
      refs.canvas.current!.setPointerCapture(event.pointerId);
    },
    onPointerMove(event) {
      const from = drag.current;
      if (!from) return onHover(locate(refs, event));
      if (!from.moved && Math.hypot(event.clientX - from.x, event.clientY - from.y) < DRAG_MIN) return;
      if (!from.moved) onHover(null);
      from.moved = true;
      refs.view.current?.panBy(from.x - event.clientX);
      from.x = event.clientX;
      refs.scroller.current!.scrollTop = from.top + from.y - event.clientY;
    },
    onPointerUp(event) {
      const from = drag.current;
      drag.current = null;
      if (from && !from.moved) onClick(locate(refs, event));
    },
    onPointerCancel() {
      drag.current = null;
    },
    onPointerLeave: () => onHover(null),
  };
}

/** Natural logarithm of the scale factor per wheel unit. */
const WHEEL_ZOOM = 0.0022;

/**
 * Ctrl and wheel zooms around the pointer; a horizontal wheel, or Shift and wheel, pans; the plain
 * wheel scrolls the page.
 */
export function useWheel({ canvas, view }: CanvasRefs, onWheeled: () => void): void {
  // Not a Preact handler: Preact adds wheel listeners as passive, and passive listeners cannot stop
  // the page from scrolling.
  useEffect(() => {
    const element = canvas.current!;
    const onWheel = (event: WheelEvent): void => {
      if (event.ctrlKey || event.metaKey) {
        event.preventDefault();
        view.current?.zoomAround(event.clientX - element.getBoundingClientRect().left, Math.exp(event.deltaY * WHEEL_ZOOM));
      } else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
        event.preventDefault();
        view.current?.panBy(event.deltaX || event.deltaY);
      }
      onWheeled();
    };
    element.addEventListener("wheel", onWheel, { passive: false });
    return () => element.removeEventListener("wheel", onWheel);
  }, []);
}
