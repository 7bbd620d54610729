import { execFileSync } from "node:child_process";
import { describe, expect, it } from "vitest";
import { baseName, collapseBrackets, cutName, listShortForms, quoteForShell, showUnsafe } from "../../src/lib/text.ts";

it("replaces invisible and bidirectional characters", () => {
  expect(showUnsafe("a\u202eb\u0000c\nd\u200be")).toBe("a\ufffdb\ufffdc\ufffdd\ufffde");
  expect(showUnsafe("שלום 🔥 ü")).toBe("שלום 🔥 ü");
});

it("truncates names of 10,000 characters and counts the omitted ones", () => {
  expect(cutName("x".repeat(10_000))).toMatchObject({ hidden: 9_400 });
  expect(cutName("main")).toEqual({ text: "main", hidden: 0 });
});

describe("collapseBrackets", () => {
  it.each([
    ["std::vector<std::pair<int, int>>::push_back(int&&)", "std::vector<…>::push_back(…)"],
    ["main", "main"],
    ["f()", "f()"],
    ["operator<(A, B)", "operator<(…)"],
    ["S::operator()(int, int) const", "S::operator()(…) const"],
    ["T::operator-><A, B>(C, D)", "T::operator-><A, B>(…)"],
    ["<alloc::vec::Vec<T> as Drop>::drop", "<alloc::vec::Vec<T> as Drop>::drop"],
    ["(anonymous namespace)::run", "(anonymous namespace)::run"],
    ["a<b", "a<b"],
    ["f<g(int)->h<int>>", "f<…>"],
  ])("%s becomes %s", (name, short) => expect(collapseBrackets(name)).toBe(short));

  it("takes one pass over unclosed brackets", () => {
    const started = performance.now();
    // A second pass for each bracket would take hours.
    collapseBrackets("f<".repeat(1_000_000));
    expect(performance.now() - started).toBeLessThan(30_000);
  });
});

it("shortens a name step by step, never inside brackets", () => {
  expect(listShortForms("a::b::c::d<e::f>")).toEqual(["a::b::c::d<e::f>", "a::b::c::d<…>", "c::d<…>", "d<…>"]);
  expect(listShortForms("<a::B as c::D>::f")).toEqual(["<a::B as c::D>::f", "f"]);
  expect(listShortForms("main")).toEqual(["main"]);
  expect(listShortForms("")).toEqual([]);
});

it("takes the last part of a path", () => {
  expect(["/usr/lib/libc.so.6", "[kernel]", "/", ""].map(baseName)).toEqual(["libc.so.6", "[kernel]", "/", ""]);
});

it("quotes so that a shell reads the same word", () => {
  for (const word of ["plain", "", "a b", "it's", '{comm="x"}&from=1', "$(rm -rf /)", "`x`", "\\", "!!", "a\nb"]) {
    const echoed = execFileSync("/bin/sh", ["-c", `printf %s ${quoteForShell(word)}`], { encoding: "utf8" });
    expect(echoed).toBe(word);
  }
});
