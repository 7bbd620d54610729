// The tests' text format for trees: one line per stack, `a;b;c 12`, merged into a tree with one
// sample per unit. `k:` before a name marks kernel code, `i:` inlined, `?:` unnamed; `name@binary`
// sets the binary.
import { buildTree, type FlameTree, type Unnamed } from "../../src/lib/flame-tree.ts";

const KINDS: Record<string, number> = { k: 1, i: 2, "?": 3 };

interface Node {
  total: number;
  children: Map<string, Node>;
}

/**
 * Sorts children by total, largest first, like the server; `~cut 5` is a cut node that stands for 3
 * nodes.
 */
export function treeFromText(text: string): FlameTree {
  const root: Node = { total: 0, children: new Map() };
  for (const line of text.trim().split("\n")) {
    const [, path, count] = /^\s*(.*) (\d+)$/.exec(line)!;
    let node = root;
    node.total += Number(count);
    for (const name of path!.split(";")) {
      let child = node.children.get(name);
      if (!child) node.children.set(name, (child = { total: 0, children: new Map() }));
      child.total += Number(count);
      node = child;
    }
  }
  const names: string[] = [];
  const frames = { name: [] as string[], binary: [] as string[], file: [] as string[], line: [] as number[], kind: [] as number[], unnamed: new Map<number, Unnamed>() };
  const columns = { depth: [] as number[], frame: [] as number[], total: [] as number[], samples: [] as number[] };
  const cut = new Map<number, number>();
  const frameOf = (text: string): number => {
    if (text === "~cut") return -2;
    const known = names.indexOf(text);
    if (known >= 0) return known;
    const [, kind, name, binary] = /^(?:([ki?]):)?([^@]*)(?:@(.*))?$/.exec(text)!;
    frames.name.push(name!);
    frames.binary.push(binary ?? "");
    frames.file.push("");
    frames.line.push(0);
    frames.kind.push(kind ? KINDS[kind]! : 0);
    return names.push(text) - 1;
  };
  const visit = (node: Node, depth: number, frame: number): void => {
    if (frame === -2) cut.set(columns.depth.length, 3);
    columns.depth.push(depth);
    columns.frame.push(frame);
    columns.total.push(node.total);
    columns.samples.push(node.total);
    [...node.children].sort((a, b) => b[1].total - a[1].total).forEach(([name, child]) => visit(child, depth + 1, frameOf(name)));
  };
  visit(root, 0, -1);
  return buildTree({ ...columns, cut, frames });
}

/** Formats the tree as indented lines. */
export function textFromTree(tree: FlameTree): string {
  const lines: string[] = [];
  for (let node = 0; node < tree.length; node += 1) {
    const frame = tree.frame[node]!;
    const name = frame >= 0 ? tree.frames.name[frame]! : frame === -2 ? `~cut(${tree.cut.get(node)})` : "all";
    lines.push(`${"  ".repeat(tree.depth[node]!)}${name} ${tree.total[node]}@${tree.start[node]}`);
  }
  return lines.join("\n");
}
