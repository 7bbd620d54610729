// Keyboard navigation in a tree: a node and a key in, the next node out.
import { listChildren, type FlameTree } from "./flame-tree.ts";

/**
 * Returns the node to which a key moves the focus, the same node at the edge of the tree, or null
 * for any other key.
 */
export function moveFocus(tree: FlameTree, node: number, key: string): number | null {
  switch (key) {
    case "Home":
      return 0;
    case "ArrowUp":
      return Math.max(0, tree.parent[node]!);
    case "ArrowDown":
      return node + 1 < tree.end[node]! ? node + 1 : node;
    case "ArrowLeft":
      return siblingOf(tree, node, -1);
    case "ArrowRight":
      return siblingOf(tree, node, 1);
    default:
      return null;
  }
}

function siblingOf(tree: FlameTree, node: number, direction: 1 | -1): number {
  if (node === 0) return 0;
  const siblings = listChildren(tree, tree.parent[node]!);
  return siblings[siblings.indexOf(node) + direction] ?? node;
}

/**
 * The next or previous match from a node (-1: from none), with wrap-around. `nodes` is ascending
 * and not empty.
 */
export function nextMatch(nodes: Int32Array, from: number, direction: 1 | -1): number {
  if (direction > 0) return nodes.find((node) => node > from) ?? nodes[0]!;
  return nodes.findLast((node) => node < from) ?? nodes.at(-1)!;
}
