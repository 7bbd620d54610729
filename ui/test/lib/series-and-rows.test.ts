import { describe, expect, it } from "vitest";
import { largestValue, meanCores, reportedMs, stackValues } from "../../src/lib/chart-series.ts";
import { pagesOf, visibleRows } from "../../src/lib/row-window.ts";

describe("stackValues", () => {
  it("stacks values, with gaps only where no series has a value", () => {
    expect(stackValues([[1, null, null, 0], [2, 3, null, 0]])).toEqual([[1, 0, null, 0], [3, 3, null, 0]]);
  });
  it("accepts zero series and zero points", () => {
    expect(stackValues([])).toEqual([]);
    expect(stackValues([[]])).toEqual([[]]);
  });
});

it("means and maxima ignore gaps", () => {
  expect(reportedMs([10_000, 0, 7_500])).toBe(17_500);
  expect(reportedMs([])).toBe(0);
  expect(meanCores(30e9, 20_000)).toBe(1.5);
  expect(meanCores(30e9, 0)).toBeNull();
  expect(largestValue([[1, null], [7, 2]])).toBe(7);
  expect(largestValue([])).toBe(0);
});

describe("rows", () => {
  const scroll = { height: 260, rowHeight: 26, rowCount: 1000 };
  it("are the visible ones and a few around them", () => {
    expect(visibleRows({ ...scroll, top: 0 })).toEqual({ first: 0, end: 18 });
    expect(visibleRows({ ...scroll, top: 26 * 100 })).toEqual({ first: 92, end: 118 });
    expect(visibleRows({ ...scroll, top: 26 * 990 })).toEqual({ first: 982, end: 1000 });
  });
  it("end with the table, also if it shrank below the scroll position", () => {
    expect(visibleRows({ ...scroll, top: 26 * 990, rowCount: 3 })).toEqual({ first: 3, end: 3 });
    expect(visibleRows({ ...scroll, top: 0, rowCount: 0 })).toEqual({ first: 0, end: 0 });
  });
  it("belong to pages", () => {
    expect(pagesOf({ first: 0, end: 18 }, 200)).toEqual([0]);
    expect(pagesOf({ first: 190, end: 210 }, 200)).toEqual([0, 1]);
    expect(pagesOf({ first: 200, end: 400 }, 200)).toEqual([1]);
    expect(pagesOf({ first: 5, end: 5 }, 200)).toEqual([]);
  });
});
