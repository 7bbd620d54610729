// Marks the way of a flame graph from the answer's last byte to the screen, for
// the browser's own profiler and for the benchmark.

const RECEIVED = "flame:received";
const BUILT = "flame:built";

export function markReceived(): void {
  performance.mark(RECEIVED);
}

export function markBuilt(): void {
  performance.mark(BUILT);
  performance.measure("flame:data to tree", RECEIVED, BUILT);
}

/** Call after the first painting of a tree; without an answer before it, nothing is measured. */
export function markPainted(): void {
  if (performance.getEntriesByName(RECEIVED).length === 0) return;
  performance.measure("flame:data to picture", RECEIVED);
}
