import { describe, expect, it } from "vitest";
import type { NodeEntry, NodeStatus, PolicyReport } from "../../src/api/shapes.ts";
import { collectExcluded } from "../../src/views/excluded-pods.ts";
import { listTroubles, needsAttention } from "../../src/views/node-status.ts";

function node(name: string, status: NodeStatus, policy: PolicyReport | null): NodeEntry {
  const report = { received_ms: 0, version: "", kernel: "", state: "", reason: "", policy_revision: "", policy, checks: [] };
  return { node: name, status, report } as unknown as NodeEntry;
}

function excluding(pods: string[], count = pods.length): PolicyReport {
  const excluded = pods.map((text) => {
    const [namespace = "", pod = "", rule = ""] = text.split(" ");
    return { namespace, pod, rule };
  });
  return { state: "current", reason: "", excluded, excluded_count: count };
}

describe("excluded pods", () => {
  it("are collected by rule, the rule with most pods first, from nodes that run", () => {
    const nodes = [
      node("a", "sampling", excluding(["shop cart r2", "shop db r1"])),
      node("b", "starting", excluding(["shop web r1"], 5)),
      node("c", "silent", excluding(["old pod r3"])),
      node("d", "stopped", excluding(["old pod r3"])),
      node("e", "sampling", null),
      { node: "f", status: "unknown", report: null } as unknown as NodeEntry,
    ];
    expect(collectExcluded({ nodes })).toEqual({
      count: 7,
      unlisted: 4,
      rules: [
        { rule: "r1", pods: [{ node: "a", name: "shop/db" }, { node: "b", name: "shop/web" }] },
        { rule: "r2", pods: [{ node: "a", name: "shop/cart" }] },
      ],
    });
    expect(collectExcluded({ nodes: [] })).toEqual({ count: 0, unlisted: 0, rules: [] });
  });

  it("under another policy than the source's are a trouble of their node", () => {
    const last = node("a", "sampling", { ...excluding([]), state: "last", reason: "the file is gone" });
    expect(needsAttention(last)).toBe(true);
    expect(listTroubles(last)).toEqual(["the file is gone"]);
    expect(needsAttention(node("a", "sampling", excluding(["a b c"])))).toBe(false);
    expect(needsAttention(node("a", "sampling", null))).toBe(false);
  });
});
