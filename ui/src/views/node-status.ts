// What a node's status means to a person.
import type { NodeEntry, NodeReport, NodeStatus } from "../api/shapes.ts";
import { formatDuration, formatNumberOf } from "../lib/format.ts";

const WORDS: Record<NodeStatus, string> = {
  starting: "starting",
  sampling: "sampling",
  cannot_sample: "cannot sample",
  stopped: "stopped",
  silent: "no report for minutes",
  unknown: "not known",
};

export function describeStatus(status: NodeStatus): string {
  return WORDS[status];
}

/** Whether somebody should look at the node: it does not sample, does less than it could, has not the policy of its source, or its windows do not fit together. */
export function needsAttention(node: NodeEntry): boolean {
  const { status, report } = node;
  if (listAccountTroubles(node).length > 0) return true;
  if (status === "cannot_sample" || status === "silent") return true;
  if (status === "stopped" || report === null) return false;
  return report.reason !== "" || report.checks.some(({ outcome }) => outcome === "degraded") || !hasOwnPolicy(report);
}

function hasOwnPolicy({ policy }: NodeReport): boolean {
  return policy === null || policy.state === "current" || policy.state === "unknown";
}

/** What is wrong with the node's windows in the range. */
function listAccountTroubles({ overlap_ns: leftOutNs, overlap_kept_ns: keptNs, unbalanced_windows: unbalanced }: NodeEntry): string[] {
  const lines: string[] = [];
  if (leftOutNs > 0 || keptNs > 0) {
    lines.push(`Two collectors sampled this node at the same time: ${formatDuration(leftOutNs)} of the older one are left out, about ${formatDuration(keptNs)} count twice.`);
  }
  if (unbalanced > 0) lines.push(`The account of ${formatNumberOf(unbalanced, "window")} does not balance: samples may be missing, and are not counted as lost.`);
  return lines;
}

/** Why the node does not sample, what it does not do, and what is wrong with its windows: a line each, with the remedy. */
export function listTroubles(node: NodeEntry): string[] {
  return [...listReportTroubles(node), ...listAccountTroubles(node)];
}

function listReportTroubles({ report }: NodeEntry): string[] {
  if (!report) return [];
  const reasons = report.reason.split("\n").filter(Boolean);
  // The reason has the policy's too while no pod is profiled.
  if (report.policy?.state === "last") reasons.push(report.policy.reason);
  const checks = report.checks.filter(({ outcome }) => outcome === "degraded" || outcome === "failed");
  const lines = checks.map(({ name, found, effect, remedy }) => `${name}: ${[found, effect, remedy].filter(Boolean).join("; ")}`);
  return [...new Set([...reasons, ...lines])];
}
