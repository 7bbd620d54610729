import { describe, expect, it } from "vitest";
import { addMatcher, formatSelector, parseSelector, quoteValue, readTokens, removeMatcher, type Matcher } from "../../src/lib/selector.ts";

const parse = (text: string): Matcher[] => {
  const parsed = parseSelector(text);
  if (parsed.error) throw new Error(`${parsed.error.message} at ${parsed.error.position}`);
  return parsed.matchers;
};

describe("parseSelector", () => {
  it("reads all four operators and all three quotes", () => {
    expect(parse("{a=\"1\", b!='2', c=~`3\\d`, d!~\"4.*\",}")).toEqual([
      { label: "a", operator: "=", value: "1" },
      { label: "b", operator: "!=", value: "2" },
      { label: "c", operator: "=~", value: "3\\d" },
      { label: "d", operator: "!~", value: "4.*" },
    ]);
  });

  it("accepts an empty text, empty braces and missing braces", () => {
    expect(parse("")).toEqual([]);
    expect(parse("  {  } ")).toEqual([]);
    expect(parse('comm="sort"')).toEqual([{ label: "comm", operator: "=", value: "sort" }]);
  });

  it("resolves escapes, and keeps those of regular expressions", () => {
    expect(parse('{a="x\\"y\\\\z\\n", b=~"a\\\\.b"}').map(({ value }) => value)).toEqual(['x"y\\z\n', "a\\.b"]);
  });

  it.each([
    ["{pod=cart}", 5, "expected a quoted value"],
    ['{pod "cart"}', 5, "expected =, !=, =~ or !~ after pod"],
    ['{pod="cart"', 11, "the closing brace is missing"],
    ['{pod="cart', 5, "the value's closing quote is missing"],
    ['{a="1" b="2"}', 7, "expected a comma between matchers"],
    ['{a="1"} x', 8, "nothing may follow the closing brace"],
    ["{=}", 1, "expected a label name"],
    ['{,a="1"}', 1, "expected a label name"],
    ['a="1"}', 5, "there is no { that this closes"],
    ["{a=", 3, "expected a quoted value"],
    ["{🔥}", 1, "expected a label name"],
  ])("says where %s is wrong", (text, position, message) => {
    expect(parseSelector(text).error).toMatchObject({ position, message });
  });

  it("parses its own output, for any value", () => {
    for (const value of ["", '"', "\\", "\\n", "a\nb\tc\r", "{}", ",", "🔥", "`'\"", "\\d+\\.so"]) {
      const matchers: Matcher[] = [{ label: "a", operator: "=~", value }];
      expect(parse(formatSelector(matchers))).toEqual(matchers);
      expect(readTokens(quoteValue(value))).toHaveLength(1);
    }
  });
});

describe("edits", () => {
  const base = parse('{comm="rustc", node="a"}');
  it("replaces an equality on the same label", () => {
    expect(formatSelector(addMatcher(base, { label: "comm", operator: "=", value: "cc1" }))).toBe('{node="a", comm="cc1"}');
  });
  it("allows several exclusions of one label", () => {
    const one = addMatcher([], { label: "comm", operator: "!=", value: "a" });
    expect(addMatcher(one, { label: "comm", operator: "!=", value: "b" })).toHaveLength(2);
  });
  it("removes an exclusion when the value is selected", () => {
    const excluded = addMatcher([], { label: "comm", operator: "!=", value: "a" });
    expect(addMatcher(excluded, { label: "comm", operator: "=", value: "a" })).toEqual([{ label: "comm", operator: "=", value: "a" }]);
  });
  it("adds nothing twice and removes only what is named", () => {
    expect(addMatcher(base, base[0]!)).toHaveLength(2);
    expect(removeMatcher(base, { label: "comm", operator: "=", value: "other" })).toEqual(base);
    expect(removeMatcher(base, base[0]!)).toEqual([base[1]]);
  });
});
