// The page's unit of length: 10 pixels, more on very wide screens or when the
// person's browser has larger text. What is drawn on canvases follows it too.

/** One rem in CSS pixels. */
export function readRem(): number {
  return Number.parseFloat(getComputedStyle(document.documentElement).fontSize) || 10;
}
