// Performance marks from the last byte of a flame graph's answer to its first painting, for the
// browser's profiler and the benchmark.

const RECEIVED = "flame:received";
const BUILT = "flame:built";

export function markReceived(): void {
  performance.mark(RECEIVED);
}

export function markBuilt(): void {
  performance.mark(BUILT);
  performance.measure("flame:data to tree", RECEIVED, BUILT);
}

/** Call after the first painting of a tree. Does nothing if no answer has been received. */
export function markPainted(): void {
  if (performance.getEntriesByName(RECEIVED).length === 0) return;
  performance.measure("flame:data to painting", RECEIVED);
}
