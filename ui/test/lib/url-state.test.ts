import { expect, it } from "vitest";
import { DEFAULT_STATE, readAddress, writeAddress, type PageState } from "../../src/lib/url-state.ts";

const FULL: PageState = {
  query: '{comm=~"a&b=c#d", pod="ü %20+"}',
  from: "2026-11-23T02:00:00Z",
  to: "now-5m",
  by: "node",
  chart: "lines",
  search: "/a+b&c/i",
  zoom: ["main", ["f<a, b>", "/bin/x", "x.c", 2], "\u202e<script>"],
  fold: true,
  sort: "total",
  filter: "=&?#",
  panels: "containers",
  containerSort: "throttled",
  theme: "dark",
  zone: "utc",
  refresh: 30,
};

it("round-trips", () => {
  expect(readAddress(writeAddress(FULL))).toEqual(FULL);
  expect(readAddress(writeAddress({ ...FULL, by: "" })).by).toBe("");
});

it("writes nothing for the defaults", () => {
  expect(writeAddress(DEFAULT_STATE)).toBe("");
  expect(readAddress("")).toEqual(DEFAULT_STATE);
});

it("falls back to the defaults for invalid values", () => {
  expect(readAddress("?zoom={&theme=pink&tz=mars&sort=name&fold=all&refresh=7&chart=pie&panels=&csort=name&unknown=1")).toEqual(DEFAULT_STATE);
});

it("uses the preferences for settings missing in the URL", () => {
  const preferred = { ...DEFAULT_STATE, theme: "dark" as const };
  expect(readAddress("?query={}", preferred).theme).toBe("dark");
  expect(readAddress("?theme=light", preferred).theme).toBe("light");
});
