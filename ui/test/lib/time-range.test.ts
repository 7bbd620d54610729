import { describe, expect, it } from "vitest";
import { describeRange, formatRange, formatTime, normalizeTime, parseTime, resolveRange, shiftRange, widenRange } from "../../src/lib/time-range.ts";

process.env.TZ = "America/New_York";
const NOW = Date.UTC(2026, 10, 23, 2, 0, 0);

describe("parseTime", () => {
  it.each([
    ["now", NOW],
    ["now-15m", NOW - 900_000],
    ["now - 2h", NOW - 7_200_000],
    ["now-500ms", NOW - 500],
    ["now+1d", NOW + 86_400_000],
    ["now-1w", NOW - 604_800_000],
    ["1795312800", 1_795_312_800_000],
    ["1795312800000", 1_795_312_800_000],
    ["0", 0],
    ["2026-11-23T02:00:00Z", NOW],
    ["2026-11-23T03:30:00+01:30", NOW],
    ["2026-11-23T02:00:00.250Z", NOW + 250],
    [" 2026-11-23 02:00Z ", NOW],
  ])("reads %s", (text, ms) => expect(parseTime(text, NOW, "utc")).toBe(ms));

  it("interprets a date without a zone in the selected zone", () => {
    expect(parseTime("2026-11-23 02:00", NOW, "utc")).toBe(NOW);
    expect(parseTime("2026-11-22 21:00", NOW, "local")).toBe(NOW);
    expect(parseTime("2026-11-23", NOW, "utc")).toBe(Date.UTC(2026, 10, 23));
  });

  it.each(["", "yesterday", "now-15", "now-m", "now-15y", "2026-02-30", "2026-13-01", "2026-11-23 25:00", "2026-11-23 02:61", "-5", "1.5", "2026-11-23T02:00:00+99:00"])(
    "refuses %s and says what can be typed",
    (text) => expect(() => parseTime(text, NOW, "utc")).toThrow(/write|no such/),
  );
});

it("refuses an empty or backward range", () => {
  expect(() => resolveRange({ from: "now", to: "now" }, NOW)).toThrow("ends before it starts");
  expect(() => resolveRange({ from: "now", to: "now-5m" }, NOW)).toThrow("ends before it starts");
});

it("keeps relative times and writes others in UTC", () => {
  expect(normalizeTime("now - 15m", NOW, "local")).toBe("now-15m");
  expect(normalizeTime("2026-11-22 21:00", NOW, "local")).toBe("2026-11-23T02:00:00Z");
  expect(normalizeTime("1795312800001", NOW, "utc")).toBe("2026-11-22T02:00:00.001Z");
});

it("shows times in either zone", () => {
  expect(formatTime(NOW, "utc")).toBe("2026-11-23 02:00:00");
  expect(formatTime(NOW, "local")).toBe("2026-11-22 21:00:00");
  expect(formatRange({ fromMs: NOW, toMs: NOW + 60_000 }, "utc")).toBe("2026-11-23 02:00:00 – 02:01:00");
  expect(formatRange({ fromMs: NOW - 7_200_001, toMs: NOW }, "utc")).toBe("2026-11-22 23:59:59 – 2026-11-23 02:00:00");
  expect(describeRange({ from: "now-1h", to: "now" }, NOW, "utc")).toBe("Last hour");
  expect(describeRange({ from: "rubbish", to: "now" }, NOW, "utc")).toBe("rubbish to now");
});

it("doubles a range up to now, and moves it by halves", () => {
  const range = { fromMs: NOW - 600_000, toMs: NOW };
  expect(widenRange(range, NOW)).toEqual({ fromMs: NOW - 1_200_000, toMs: NOW });
  expect(widenRange({ fromMs: 0, toMs: 1000 }, NOW)).toEqual({ fromMs: -500, toMs: 1500 });
  expect(shiftRange(range, -1)).toEqual({ fromMs: NOW - 900_000, toMs: NOW - 300_000 });
});
