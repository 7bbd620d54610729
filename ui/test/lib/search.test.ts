import { describe, expect, it } from "vitest";
import { compileSearch, exactSearch, searchTree } from "../../src/lib/search.ts";
import { treeFromText } from "./tree-text.ts";

const TREE = treeFromText("main@/bin/app;hot@/bin/app 30\nmain@/bin/app;warm_up@/bin/app;hot@/bin/app 30\nmain@/bin/app;k:read@[kernel] 30\ncold@/lib/x.so 10");

function share(text: string): number | string {
  const { test, error } = compileSearch(text);
  return test ? searchTree(TREE, test).totalNs : (error ?? "none");
}

describe("compileSearch", () => {
  it.each<[string, number | string]>([
    ["hot", 60],
    ["HOT", 60],
    ["o", 70],
    ["/^hot$/", 60],
    ["/^(hot|cold)$/", 70],
    ["/HOT/", 0],
    ["/HOT/i", 60],
    ["=hot", 60],
    ["=ho", 0],
    ["=hot @ /bin/app", 60],
    ["=hot @ /bin/other", 0],
    ["/bin/app", 90],
    ["/lib", 10],
    ["kernel", 30],
    ["nothing", 0],
    ["", "none"],
    ["/", "none"],
    ["  ", "none"],
  ])("%s finds %s", (text, expected) => expect(share(text)).toBe(expected));

  it("reports an invalid regular expression, and matches nothing", () => {
    expect(compileSearch("/(/")).toMatchObject({ test: null, error: expect.stringContaining("(") });
  });

  it("finds exactly the function that a row names", () => {
    expect(share(exactSearch("hot", "/bin/app"))).toBe(60);
    const odd = treeFromText("a @ b@/x 5\nother 5");
    expect(odd.frames.name[0]).toBe("a ");
  });
});

describe("searchTree", () => {
  it("counts a stack once, however often it matches", () => {
    const tree = treeFromText("visit;visit;visit 10\nvisit;leaf 5\nother;visit 3\nother 2");
    const matches = searchTree(tree, (name) => name === "visit");
    expect(matches.totalNs).toBe(18);
    expect(matches.samples).toBe(18);
    expect(matches.nodes).toHaveLength(4);
  });
  it("counts the CPU time of cut nodes that were not searched", () => {
    const tree = treeFromText("visit;~cut 10\nother;~cut 5\nother;visit 3");
    const matches = searchTree(tree, (name) => name === "visit");
    expect(matches.totalNs).toBe(13);
    expect(matches.unknownNs).toBe(5);
  });
});
