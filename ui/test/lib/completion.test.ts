import { describe, expect, it } from "vitest";
import { applyCandidate, valuesQuery, findCompletionContext, orderLabels, rankCandidates } from "../../src/lib/completion.ts";

/** Splits a text at the caret, written as `|`. */
function at(marked: string): [string, number] {
  const caret = marked.indexOf("|");
  return [marked.replace("|", ""), caret];
}
const context = (marked: string) => findCompletionContext(...at(marked));
function accept(marked: string, candidate: string): string {
  const [text, caret] = at(marked);
  const edit = applyCandidate(text, findCompletionContext(text, caret)!, candidate);
  return `${edit.text.slice(0, edit.caret)}|${edit.text.slice(edit.caret)}`;
}

describe("findCompletionContext", () => {
  it.each([
    ["|", "label", ""],
    ["{|", "label", ""],
    ["{|}", "label", ""],
    ["{co|", "label", "co"],
    ["{co|mm", "label", "co"],
    ['{a="1", |', "label", ""],
    ['{a="1",|}', "label", ""],
    ["{comm |", "operator", ""],
    ["{comm!|", "operator", "!"],
    ["{comm=|", "value", ""],
    ["{comm=~|", "value", ""],
    ['{comm="|', "value", ""],
    ['{comm="ru|', "value", "ru"],
    ['{comm="ru|stc"}', "value", "ru"],
    ["{comm=ru|", "value", "ru"],
  ])("in %s it wants a %s that starts with “%s”", (marked, kind, prefix) => {
    expect(context(marked)).toMatchObject({ kind, prefix });
  });

  it("has no context after a complete value or the closing brace", () => {
    expect(context('{comm="rustc"|')).toBeNull();
    expect(context('{comm="rustc"}|')).toBeNull();
  });

  it("requests values with the other matchers only", () => {
    const found = context('{node="a", comm="r|", exe!="x"}')!;
    expect(valuesQuery(found)).toBe('{node="a", exe!="x"}');
    expect(context('{node="a", |')).toMatchObject({ used: ["node"] });
  });
});

describe("applyCandidate", () => {
  it.each([
    ["|", "comm", "{comm=|"],
    ["{co|", "comm", "{comm=|"],
    ['{co|="x"}', "comm", '{comm|="x"}'],
    ["{comm=|", "rustc", '{comm="rustc"|}'],
    ['{comm="ru|', "rustc", '{comm="rustc"|}'],
    ['{comm="ru|stc"}', "cc1", '{comm="cc1"|}'],
    ['{node="a",|', "comm", '{node="a", comm=|'],
    ['{a="1", comm="r|, b="2"}', 'q"uote', '{a="1", comm="q\\"uote"|2"}'],
  ])("turns %s and %s into %s", (marked, candidate, expected) => {
    expect(accept(marked, candidate)).toBe(expected);
  });
});

it("ranks prefix matches before other matches, ignoring case", () => {
  expect(rankCandidates(["bar", "FOO", "afoo", "food"], "foo", 10)).toEqual(["FOO", "food", "afoo"]);
  expect(rankCandidates(["a", "b", "c"], "", 2)).toEqual(["a", "b"]);
});

it("offers the labels of a pod's place first", () => {
  expect(orderLabels(["comm", "container", "node", "pod", "workload_kind"])).toEqual(["pod", "container", "comm", "node", "workload_kind"]);
  expect(orderLabels(["comm", "exe"])).toEqual(["comm", "exe"]);
});
