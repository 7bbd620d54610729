import { describe, expect, it } from "vitest";
import type { NodeEntry } from "../../src/api/shapes.ts";
import { listTroubles, needsAttention } from "../../src/views/node-status.ts";

function node(sums: Partial<NodeEntry>): NodeEntry {
  return { node: "a", status: "unknown", report: null, unbalanced_windows: 0, overlap_ns: 0, overlap_kept_ns: 0, ...sums } as unknown as NodeEntry;
}

describe("troubles of a node's windows", () => {
  it("are none if the windows fit together", () => {
    expect(needsAttention(node({}))).toBe(false);
    expect(listTroubles(node({}))).toEqual([]);
  });

  it("are two collectors at once, and accounts that do not balance", () => {
    const twice = node({ overlap_ns: 3_000_000_000, overlap_kept_ns: 500_000_000, unbalanced_windows: 2 });
    expect(needsAttention(twice)).toBe(true);
    expect(listTroubles(twice)).toEqual([
      "Two collectors sampled this node at the same time: 3.00 s of the older one are left out, about 500 ms count twice.",
      "The account of 2 windows does not balance: samples may be missing, and are not counted as lost.",
    ]);
    expect(needsAttention(node({ overlap_kept_ns: 1 }))).toBe(true);
    expect(needsAttention(node({ unbalanced_windows: 1 }))).toBe(true);
  });
});
