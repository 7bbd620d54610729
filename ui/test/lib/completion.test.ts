import { describe, expect, it } from "vitest";
import { applyCandidate, contextQuery, findWanted, rankCandidates } from "../../src/lib/completion.ts";

/** The caret is written as `|`. */
function at(marked: string): [string, number] {
  const caret = marked.indexOf("|");
  return [marked.replace("|", ""), caret];
}
const wanted = (marked: string) => findWanted(...at(marked));
function accept(marked: string, candidate: string): string {
  const [text, caret] = at(marked);
  const edit = applyCandidate(text, findWanted(text, caret)!, candidate);
  return `${edit.text.slice(0, edit.caret)}|${edit.text.slice(edit.caret)}`;
}

describe("findWanted", () => {
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
    expect(wanted(marked)).toMatchObject({ kind, prefix });
  });

  it("wants nothing after a whole value or the closing brace", () => {
    expect(wanted('{comm="rustc"|')).toBeNull();
    expect(wanted('{comm="rustc"}|')).toBeNull();
  });

  it("asks for values within the other matchers only", () => {
    const found = wanted('{node="a", comm="r|", exe!="x"}')!;
    expect(contextQuery(found)).toBe('{node="a", exe!="x"}');
    expect(wanted('{node="a", |')).toMatchObject({ used: ["node"] });
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

it("ranks what starts with the prefix before what contains it, in any case", () => {
  expect(rankCandidates(["bar", "FOO", "afoo", "food"], "foo", 10)).toEqual(["FOO", "food", "afoo"]);
  expect(rankCandidates(["a", "b", "c"], "", 2)).toEqual(["a", "b"]);
});
