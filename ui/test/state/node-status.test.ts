import { describe, expect, it } from "vitest";
import type { NodeCheck, NodeEntry, NodeStatus } from "../../src/api/shapes.ts";
import { listTroubles, needsAttention } from "../../src/views/node-status.ts";

function node(status: NodeStatus, reason: string, checks: NodeCheck[] = []): NodeEntry {
  const report = { received_ms: 0, version: "", kernel: "", state: "", reason, policy_revision: "", policy: null, checks };
  return { node: "a", status, report } as unknown as NodeEntry;
}

const btf = { name: "btf", outcome: "failed", found: "no BTF", effect: "nothing is sampled", remedy: "use another kernel" } as NodeCheck;
const syslog = { name: "CAP_SYSLOG", outcome: "degraded", found: "missing", effect: "no names of the kernel", remedy: "" } as NodeCheck;

describe("the status of a node", () => {
  it("needs attention for a reason, whatever the state, unless the node was stopped", () => {
    expect(needsAttention(node("sampling", ""))).toBe(false);
    expect(needsAttention(node("sampling", "no labels of pods"))).toBe(true);
    expect(needsAttention(node("starting", "another collector samples this node"))).toBe(true);
    expect(needsAttention(node("sampling", "", [syslog]))).toBe(true);
    expect(needsAttention(node("stopped", "another collector samples this node", [syslog]))).toBe(false);
    expect(needsAttention(node("cannot_sample", ""))).toBe(true);
    expect(needsAttention(node("silent", ""))).toBe(true);
    expect(needsAttention({ node: "a", status: "unknown", report: null } as unknown as NodeEntry)).toBe(false);
  });

  it("has each cause in one line, also one that is a check and in the reason", () => {
    const line = "btf: no BTF; nothing is sampled; use another kernel";
    expect(listTroubles(node("cannot_sample", line, [btf]))).toEqual([line]);
    expect(listTroubles(node("cannot_sample", `no CAP_BPF\n${line}`, [btf, syslog]))).toEqual(["no CAP_BPF", line, "CAP_SYSLOG: missing; no names of the kernel"]);
    expect(listTroubles(node("sampling", ""))).toEqual([]);
  });
});
