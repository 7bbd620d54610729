// The page's unit of length: 10 pixels, and more on very wide screens or with larger text in the
// browser. The canvases use it too.

/** One rem in CSS pixels. */
export function readRem(): number {
  return Number.parseFloat(getComputedStyle(document.documentElement).fontSize) || 10;
}
