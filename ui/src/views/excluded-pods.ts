// The pods that policies exclude, of all nodes, by the rule that excludes them.
import type { NodesAnswer } from "../api/shapes.ts";

export interface ExcludingRule {
  rule: string;
  pods: { node: string; name: string }[];
}

export interface ExcludedPods {
  /** With those that no node lists. */
  count: number;
  rules: ExcludingRule[];
  /** The pods that no node lists. */
  unlisted: number;
}

/** What nodes that run say now; the last word of others is old. */
export function collectExcluded({ nodes }: NodesAnswer): ExcludedPods {
  const byRule = new Map<string, ExcludingRule>();
  let count = 0;
  let listed = 0;
  for (const { node, status, report } of nodes) {
    if (!report?.policy || status === "stopped" || status === "silent") continue;
    const { excluded, excluded_count } = report.policy;
    count += excluded_count;
    listed += excluded.length;
    for (const { namespace, pod, rule } of excluded) {
      const entry = byRule.get(rule) ?? { rule, pods: [] };
      entry.pods.push({ node, name: `${namespace}/${pod}` });
      byRule.set(rule, entry);
    }
  }
  const rules = [...byRule.values()].sort((a, b) => b.pods.length - a.pods.length || (a.rule < b.rule ? -1 : 1));
  return { count, rules, unlisted: Math.max(count - listed, 0) };
}
