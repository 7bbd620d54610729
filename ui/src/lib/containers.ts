// The CPU accounts of containers and systemd units: how a row is named, which matchers select it, and
// when its ratio differs by more than chance.
import type { Matcher } from "./selector.ts";

/** Labels of processes. The kernel's accounts are of whole containers, which these do not select. */
const PROCESS_LABELS = ["comm", "exe"];

/** Labels that tell containers and units apart. */
const OWN_LABELS = ["namespace", "pod", "container", "container_id", "unit"];

/** Digits of a container's id that people recognise it by, as in `docker ps`. */
const ID_DIGITS = 12;

/** Standard deviations beyond which a ratio is not chance: 3 in 1,000 are by chance. */
const DEVIATIONS = 3;

/** Separates the matchers that select containers from those of processes. */
export function splitMatchers(matchers: readonly Matcher[]): { ofContainers: Matcher[]; ofProcesses: Matcher[] } {
  const isOfProcesses = ({ label }: Matcher): boolean => PROCESS_LABELS.includes(label);
  return { ofContainers: matchers.filter((matcher) => !isOfProcesses(matcher)), ofProcesses: matchers.filter(isOfProcesses) };
}

export type Labels = Record<string, string>;

/** The name of a container or unit within its pod and node; empty for the rest of a pod or node. */
export function nameContainer({ container, container_id: id, unit }: Labels): string {
  return container ?? id?.slice(0, ID_DIGITS) ?? unit ?? "";
}

/** The matchers that select a container or unit. */
export function listMatchers(labels: Labels): Matcher[] {
  const equal = (label: string): Matcher => ({ label, operator: "=", value: labels[label] ?? "" });
  const matchers = OWN_LABELS.filter((label) => label in labels).map(equal);
  // A unit has the same name on many nodes; a pod is on one.
  if (!("pod" in labels) && "node" in labels) matchers.unshift(equal("node"));
  // The pod's sandbox, and not its containers.
  if ("pod" in labels && !("container" in labels) && !("container_id" in labels)) matchers.push(equal("container"));
  return matchers;
}

export interface Ratio {
  ratio: number | null;
  ratio_deviation: number | null;
}

/** Whether more, or less, was sampled than the kernel's account has, by more than chance. */
export function compareRatio({ ratio, ratio_deviation: deviation }: Ratio): "more" | "less" | "equal" {
  if (ratio === null || deviation === null || Math.abs(ratio - 1) <= DEVIATIONS * deviation) return "equal";
  return ratio > 1 ? "more" : "less";
}
