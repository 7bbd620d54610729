import { describe, expect, it } from "vitest";
import { graftBranch } from "../../src/lib/flame-graft.ts";
import { moveFocus, nextMatch } from "../../src/lib/flame-focus.ts";
import { parsePath, pathOf, resolvePath } from "../../src/lib/flame-path.ts";
import { buildTree, findNodeAt, listAncestors, listChildren, nameOf, TreeError, type TreeColumns } from "../../src/lib/flame-tree.ts";
import { textFromTree, treeFromText } from "./tree-text.ts";

const TREE = treeFromText(`
  main;work;inner 40
  main;work 20
  main;rest 30
  k:kthread 10
`);

const COLUMNS: TreeColumns = {
  depth: [0, 1], frame: [-1, 0], total: [10, 10], samples: [1, 1], cut: new Map(),
  frames: { name: ["a"], binary: [""], file: [""], line: [0], kind: [0], unnamed: new Map() },
};

describe("buildTree", () => {
  it("computes parents, ends, starts and self times", () => {
    expect(textFromTree(TREE)).toBe(["all 100@0", "  main 90@0", "    work 60@0", "      inner 40@0", "    rest 30@60", "  kthread 10@90"].join("\n"));
    expect([...TREE.parent]).toEqual([-1, 0, 1, 2, 1, 0]);
    expect([...TREE.end]).toEqual([6, 5, 4, 4, 5, 6]);
    expect([...TREE.self]).toEqual([0, 0, 20, 40, 30, 10]);
    expect(TREE.depthMax).toBe(3);
    expect(TREE.sorted).toBe(true);
    expect(listChildren(TREE, 1)).toEqual([2, 4]);
    expect(listAncestors(TREE, 3)).toEqual([0, 1, 2, 3]);
  });

  it("accepts a single root", () => {
    const tree = buildTree({ ...COLUMNS, depth: [0], frame: [-1], total: [0], samples: [0] });
    expect(tree.length).toBe(1);
    expect(findNodeAt(tree, 0, 0)).toBe(-1);
  });

  it("detects unsorted children", () => {
    const tree = buildTree({ ...COLUMNS, depth: [0, 1, 1], frame: [-1, 0, 0], total: [3, 1, 2], samples: [3, 1, 2] });
    expect(tree.sorted).toBe(false);
  });

  it.each<[string, Partial<TreeColumns>]>([
    ["no root", { depth: [], frame: [], total: [], samples: [] }],
    ["a first node below the root", { depth: [1, 1] }],
    ["a level left out", { depth: [0, 2] }],
    ["a second root", { depth: [0, 0] }],
    ["columns of different length", { total: [1] }],
    ["a frame that is not in the table", { frame: [-1, 1] }],
    ["a depth that does not fit its column", { depth: [0, 70_000] }],
    ["an unknown special frame", { frame: [-1, -3] }],
  ])("refuses %s", (_, wrong) => {
    expect(() => buildTree({ ...COLUMNS, ...wrong })).toThrow(TreeError);
  });
});

describe("findNodeAt", () => {
  it.each([
    [0, 0, "all"], [0, 3, "inner"], [39.9, 3, "inner"], [40, 2, "work"], [60, 2, "rest"], [89, 1, "main"], [90, 1, "kthread"], [99.9, 1, "kthread"],
  ])("at %d in row %d is %s", (offset, depth, name) => expect(nameOf(TREE, findNodeAt(TREE, offset, depth))).toBe(name));
  it.each([[40, 3], [95, 2], [100, 0], [-1, 0]])("finds no node at %d in row %d", (offset, depth) => expect(findNodeAt(TREE, offset, depth)).toBe(-1));
});

describe("paths", () => {
  it("resolve to their node", () => {
    for (let node = 0; node < TREE.length; node += 1) expect(resolvePath(TREE, pathOf(TREE, node)).node).toBe(node);
  });
  it("distinguish siblings of one name", () => {
    const tree = treeFromText("main@/a 5\nmain@/b 3\nmain@/a;x 1");
    const second = listChildren(tree, 0)[1]!;
    expect(pathOf(tree, second)).toEqual([["main", "/b", "", 0]]);
    expect(resolvePath(tree, pathOf(tree, second)).node).toBe(second);
  });
  it("resolve as far as the tree goes, and report possible cuts", () => {
    expect(resolvePath(TREE, ["main", "gone", "deeper"])).toEqual({ node: 1, steps: 1, cutHere: false });
    const cut = treeFromText("main;a 5\nmain;~cut 2");
    expect(resolvePath(cut, ["main", "b"])).toMatchObject({ steps: 1, cutHere: true });
    expect(resolvePath(cut, ["main", "a"])).toMatchObject({ steps: 2, cutHere: false });
  });
  it("are validated", () => {
    expect(parsePath('["a",["b","/x","f.c",2]]')).toEqual(["a", ["b", "/x", "f.c", 2]]);
    for (const text of ["", "{", "3", '"a"', "[1]", '[["a"]]', "[null]"]) expect(parsePath(text)).toBeNull();
  });
});

describe("graftBranch", () => {
  it("replaces the cut part by the branch, and keeps all sums", () => {
    const tree = treeFromText("main;a 50\nmain;~cut 20\nother;~cut 7\nother 3");
    const branch = treeFromText("a 50\nb;c 12\nb;a 5\n~cut 3");
    const grafted = graftBranch(tree, 1, branch);
    expect(textFromTree(grafted)).toBe(
      ["all 80@0", "  main 70@0", "    a 50@0", "    b 17@50", "      c 12@50", "      a 5@62", "    ~cut(3) 3@67", "  other 10@70", "    ~cut(3) 7@70"].join("\n"),
    );
    expect(grafted.frames.name).toEqual(["main", "a", "other", "b", "c"]);
    expect([...grafted.self]).toEqual([0, 0, 50, 0, 12, 5, 3, 3, 7]);
    expect([...grafted.cut]).toEqual(expect.arrayContaining([[6, 3], [8, 3]]));
  });
});

describe("moveFocus", () => {
  it.each([
    [1, "ArrowDown", 2], [3, "ArrowDown", 3], [2, "ArrowUp", 1], [0, "ArrowUp", 0],
    [2, "ArrowRight", 4], [4, "ArrowLeft", 2], [4, "ArrowRight", 4], [0, "ArrowLeft", 0], [4, "Home", 0],
  ])("from %d by %s to %d", (node, key, next) => expect(moveFocus(TREE, node, key)).toBe(next));
  it("ignores other keys", () => expect(moveFocus(TREE, 1, "a")).toBeNull());
});

it("steps through the matches in both directions, with wrap-around", () => {
  const nodes = Int32Array.from([3, 7]);
  expect([nextMatch(nodes, -1, 1), nextMatch(nodes, 3, 1), nextMatch(nodes, 7, 1)]).toEqual([3, 7, 3]);
  expect([nextMatch(nodes, -1, -1), nextMatch(nodes, 7, -1), nextMatch(nodes, 3, -1)]).toEqual([7, 3, 7]);
});
