// What a node's status means to a person.
import type { NodeEntry, NodeReport, NodeStatus } from "../api/shapes.ts";

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

/** Whether somebody should look at the node: it does not sample, does less than it could, or has not the policy of its source. */
export function needsAttention({ status, report }: NodeEntry): boolean {
  if (status === "cannot_sample" || status === "silent") return true;
  return report !== null && (report.checks.some(({ outcome }) => outcome === "degraded") || !hasOwnPolicy(report));
}

function hasOwnPolicy({ policy }: NodeReport): boolean {
  return policy === null || policy.state === "current" || policy.state === "unknown";
}

/** Why the node does not sample, and what it does not do: a line each, with the remedy. */
export function listTroubles({ report }: NodeEntry): string[] {
  if (!report) return [];
  const checks = report.checks.filter(({ outcome }) => outcome === "degraded" || outcome === "failed");
  const lines = checks.map(({ name, found, effect, remedy }) => `${name}: ${[found, effect, remedy].filter(Boolean).join("; ")}`);
  // The reason has the policy's too while no pod is profiled.
  if (report.policy?.state === "last") lines.unshift(report.policy.reason);
  return report.reason ? [report.reason, ...lines] : lines;
}
