// The path of a node as names from the root, which stays valid when the tree is replaced. It is
// stored in the page's URL, and sent to the server to fetch a cut part.
import { CUT_FRAME, listAncestors, listChildren, nameOf, visitChildren, type FlameTree } from "./flame-tree.ts";

/** One step down: the child's name, or, if several children have that name, its whole identity. */
export type PathStep = string | [name: string, binary: string, file: string, kind: number];
export type FlamePath = readonly PathStep[];

export function stepName(step: PathStep): string {
  return typeof step === "string" ? step : step[0];
}

/** The path of a node, without the root. */
export function pathOf(tree: FlameTree, node: number): PathStep[] {
  return listAncestors(tree, node).slice(1).map((at) => stepTo(tree, at));
}

function stepTo(tree: FlameTree, node: number): PathStep {
  const name = nameOf(tree, node);
  let same = 0;
  visitChildren(tree, tree.parent[node]!, (child) => {
    if (tree.frame[child] !== CUT_FRAME && nameOf(tree, child) === name) same += 1;
  });
  if (same < 2) return name;
  const { frames } = tree;
  const frame = tree.frame[node]!;
  return [name, frames.binary[frame]!, frames.file[frame]!, frames.kind[frame]!];
}

function isStep(tree: FlameTree, node: number, step: PathStep): boolean {
  const frame = tree.frame[node]!;
  if (frame < 0 || tree.frames.name[frame] !== stepName(step)) return false;
  if (typeof step === "string") return true;
  const { binary, file, kind } = tree.frames;
  return binary[frame] === step[1] && file[frame] === step[2] && kind[frame] === step[3];
}

/**
 * Merges the steps from a function to itself: the step, the number of steps merged, and the index
 * of the last.
 */
export function groupSteps(path: FlamePath): { step: PathStep; at: number; levels: number }[] {
  const groups: { step: PathStep; at: number; levels: number }[] = [];
  path.forEach((step, at) => {
    const last = groups.at(-1);
    if (last && JSON.stringify(last.step) === JSON.stringify(step)) [last.at, last.levels] = [at, last.levels + 1];
    else groups.push({ step, at, levels: 1 });
  });
  return groups;
}

export interface ResolvedPath {
  /** The deepest node of the path that exists in the tree. */
  node: number;
  /** Number of steps of the path that exist in the tree. */
  steps: number;
  /** The next step may be among nodes that the server cut. */
  cutHere: boolean;
}

/** Follows a path down as far as the tree has it. */
export function resolvePath(tree: FlameTree, path: FlamePath): ResolvedPath {
  let node = 0;
  let steps = 0;
  for (const step of path) {
    const child = listChildren(tree, node).find((candidate) => isStep(tree, candidate, step));
    if (child === undefined) break;
    node = child;
    steps += 1;
  }
  const cutHere = steps < path.length && listChildren(tree, node).some((child) => tree.frame[child] === CUT_FRAME);
  return { node, steps, cutHere };
}

export function parsePath(text: string): PathStep[] | null {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return null;
  }
  if (!Array.isArray(value)) return null;
  const isPathStep = (step: unknown): step is PathStep =>
    typeof step === "string" ||
    (Array.isArray(step) && step.length === 4 && step.slice(0, 3).every((part) => typeof part === "string") && typeof step[3] === "number");
  return value.every(isPathStep) ? value : null;
}

export function equalPaths(a: FlamePath, b: FlamePath): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}
