import { describe, expect, it } from "vitest";
import { findLongestChain, foldRecursion, levelSuffix, levelsOf } from "../../src/lib/flame-fold.ts";
import { buildTree, listAncestors, nameOf, type FlameTree } from "../../src/lib/flame-tree.ts";
import { compileSearch, searchTree } from "../../src/lib/search.ts";
import { createRandom } from "../fixture/random.ts";
import { textFromTree, treeFromText } from "./tree-text.ts";

/** Total, self and samples of each path; the order of equal siblings does not matter. */
function sumsOf(tree: FlameTree): Map<string, string> {
  const sums = new Map<string, string>();
  for (let node = 0; node < tree.length; node += 1) {
    const path = listAncestors(tree, node).map((at) => nameOf(tree, at)).join(";");
    expect(sums.has(path)).toBe(false);
    sums.set(path, `${tree.total[node]} ${tree.self[node]} ${tree.samples[node]}`);
  }
  return sums;
}

/** The expected result of folding: the same stacks with each run of one function written once. */
function foldText(text: string): string {
  const lines = text.split("\n").map((line) => {
    const [path, count] = line.split(" ");
    return `${path!.split(";").filter((name, at, names) => name !== names[at - 1]).join(";")} ${count}`;
  });
  return lines.join("\n");
}

describe("foldRecursion", () => {
  const TREE = treeFromText("main;visit;visit;visit;compare 8\nmain;visit;compare 5\nmain;visit;visit 3\nmain;other 1");
  const folded = foldRecursion(TREE)!;

  it("merges the callees of all levels, with exact sums", () => {
    expect(textFromTree(folded.tree)).toBe("all 17@0\n  main 17@0\n    visit 16@0\n      compare 13@0\n    other 1@16");
    expect([...folded.tree.self]).toEqual([0, 0, 3, 13, 1]);
    expect([...folded.tree.samples]).toEqual([17, 17, 16, 13, 1]);
    expect(folded.tree.sorted).toBe(true);
  });

  it("has the largest number of folded levels", () => {
    expect([...folded.tree.levels!]).toEqual([1, 1, 3, 1, 1]);
    expect(nameOf(folded.tree, 2) + levelSuffix(folded.tree, 2)).toBe("visit ×3");
    expect([levelSuffix(folded.tree, 1), levelsOf(TREE, 2)]).toEqual(["", 1]);
  });

  it("maps each box to its origin and image", () => {
    expect([...folded.origin].map((node) => nameOf(TREE, node))).toEqual(["all", "main", "visit", "compare", "other"]);
    for (let node = 0; node < TREE.length; node += 1) {
      expect(nameOf(folded.tree, folded.image[node]!)).toBe(nameOf(TREE, node));
    }
    folded.origin.forEach((node, at) => expect(folded.image[node]).toBe(at));
    expect([...folded.origin].map((node) => TREE.depth[node])).toEqual([0, 1, 2, 3, 2]);
  });

  it("does not change trees without recursion or with recursion through several functions", () => {
    expect(foldRecursion(treeFromText("main;a;b;a;b 3\nmain;b 2"))).toBeNull();
    expect(foldRecursion(treeFromText("main 1"))).toBeNull();
  });

  it("distinguishes functions of one name in two binaries", () => {
    expect(foldRecursion(treeFromText("main;visit@/a;visit@/b 3"))).toBeNull();
  });

  it("merges cut nodes below all levels into one box", () => {
    const { tree, origin } = foldRecursion(treeFromText("f;f;~cut 5\nf;~cut 2\nf;g 1"))!;
    expect(textFromTree(tree)).toBe("all 8@0\n  f 8@0\n    ~cut(6) 7@0\n    g 1@7");
    // The larger one is fetched.
    expect(origin[2]).toBe(3);
  });

  it("does not change what a search finds", () => {
    const { test } = compileSearch("compare");
    const [before, after] = [searchTree(TREE, test!), searchTree(folded.tree, test!)];
    expect([after.totalNs, after.samples]).toEqual([before.totalNs, before.samples]);
    expect([before.nodes.length, after.nodes.length]).toEqual([2, 1]);
  });

  it("gives the same tree as the stacks with their runs written once", () => {
    const random = createRandom(5);
    for (let round = 0; round < 200; round += 1) {
      const stack = (): string => Array.from({ length: 1 + random.below(9) }, () => random.pick(["f", "g", "h"])).join(";");
      const text = Array.from({ length: 1 + random.below(12) }, () => `${stack()} ${1 + random.below(50)}`).join("\n");
      const tree = treeFromText(text);
      expect(sumsOf(foldRecursion(tree)?.tree ?? tree)).toEqual(sumsOf(treeFromText(foldText(text))));
    }
  });

  it("takes time linear in the number of nodes, also if all are folded", () => {
    // Half of the nodes are levels of chains of up to 65,000 levels, the other half their callees.
    const grow = (count: number): FlameTree => {
      const columns = { depth: [0], frame: [-1], total: [0], samples: [0] };
      const put = (depth: number, frame: number, total: number): void => {
        columns.depth.push(depth);
        columns.frame.push(frame);
        columns.total.push(total);
        columns.samples.push(total);
      };
      const levels = 1000;
      for (let chain = 0; columns.depth.length < count; chain += 1) {
        put(1, chain % 7, levels);
        for (let level = 1; level < levels; level += 1) put(level + 1, chain % 7, levels - level);
        for (let level = levels - 1; level > 0; level -= 1) put(level + 1, 10 + (level % 90), 1);
      }
      columns.total[0] = columns.samples[0] = columns.depth.reduce((sum, depth, at) => sum + (depth === 1 ? columns.total[at]! : 0), 0);
      const names = Array.from({ length: 100 }, (_, at) => `f${at}`);
      const fill = <T>(value: T): T[] => names.map(() => value);
      return buildTree({ ...columns, cut: new Map(), frames: { name: names, binary: fill(""), file: fill(""), line: fill(0), kind: fill(0), unnamed: new Map() } });
    };
    const tree = grow(1_000_000);
    const startedMs = performance.now();
    const result = foldRecursion(tree)!;
    // About 100 ms on an idle machine; a quadratic algorithm takes minutes.
    expect(performance.now() - startedMs).toBeLessThan(30_000);
    expect(result.tree.length).toBeLessThan(100_000);
    expect(result.tree.total[0]).toBe(tree.total[0]);
  });
});

describe("findLongestChain", () => {
  it("finds the longest chain of direct recursion", () => {
    expect(findLongestChain(treeFromText("main;f;f;g;f;g;g;g;h 1"))).toEqual({ levels: 3, name: "g" });
    expect(findLongestChain(treeFromText("main;f;g;f 1"))).toBeNull();
  });
});
