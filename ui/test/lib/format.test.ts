import { describe, expect, it } from "vitest";
import { formatCores, formatCount, formatDuration, formatNumberOf, formatPercent, formatStep, formatTicks } from "../../src/lib/format.ts";

describe("formatDuration", () => {
  it.each([
    [0, "0 s"],
    [5, "5.00 ns"],
    [1_500, "1.50 µs"],
    [120_000_000, "120 ms"],
    [999_999_999, "1.00 s"],
    [8_120_000_000, "8.12 s"],
    [59_960_000_000, "1 min"],
    [2_480_000_000_000, "41 min 20 s"],
    [7_200_000_000_000, "2 h"],
    [90_000_000_000_000, "1 d 1 h"],
  ])("%d ns is %s", (ns, text) => expect(formatDuration(ns)).toBe(text));
});

describe("formatPercent", () => {
  it.each([
    [0, "0 %"],
    [0.00001, "< 0.01 %"],
    [0.0441, "4.41 %"],
    [0.5, "50.0 %"],
    [0.99999, "99.99 %"],
    [1, "100 %"],
    [NaN, "–"],
  ])("%d is %s", (share, text) => expect(formatPercent(share)).toBe(text));
});

it("groups digits, counts nouns and names steps", () => {
  expect(formatCount(1234567)).toBe("1\u202f234\u202f567");
  expect(formatCount(999)).toBe("999");
  expect(formatNumberOf(1, "box", "boxes")).toBe("1 box");
  expect(formatNumberOf(2, "box", "boxes")).toBe("2 boxes");
  expect([10_000, 120_000, 3_600_000].map(formatStep)).toEqual(["10 s", "2 min", "1 h"]);
  expect([0, 1.923, 0.0312, 123.4].map(formatCores)).toEqual(["0", "1.92", "0.0312", "123"]);
});

it("gives the numbers of one axis the same decimals", () => {
  expect(formatTicks([0, 0.5, 1, 1.5])).toEqual(["0.0", "0.5", "1.0", "1.5"]);
  expect(formatTicks([0, 1, 2])).toEqual(["0", "1", "2"]);
  expect(formatTicks([0, 0.1, 0.2, 0.1 * 3])).toEqual(["0.0", "0.1", "0.2", "0.3"]);
  expect(formatTicks([0, 0.025])).toEqual(["0.000", "0.025"]);
});
