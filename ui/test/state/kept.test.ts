import { expect, it } from "vitest";
import type { Kept, UnreadWindows } from "../../src/api/shapes.ts";
import { describeKept } from "../../src/views/kept.ts";

const DAY_MS = 86_400_000;

const KEPT: Kept = {
  bytes: 13_000_000_000,
  oldest_ms: Date.UTC(2026, 10, 2, 14),
  age_ms: 30 * DAY_MS,
  bytes_max: 50 * 2 ** 30,
  roll_ups: [{ after_ms: DAY_MS, resolution_ms: 60_000 }, { after_ms: 7 * DAY_MS, resolution_ms: 600_000 }],
  beyond_defaults: null,
};

const NOTHING = "Nothing is evicted: the server has neither --retention nor --retention-bytes.";

it.each<[string, Partial<Kept>, number, string]>([
  ["what is stored", {}, 0, "Profiles since 2026-11-02 14:00:00, 12.1 GiB."],
  ["an empty store", { oldest_ms: null, bytes: 0 }, 0, "No profiles are stored."],
  ["both limits", {}, 1, "Kept for 30 d, up to 50.0 GiB; the oldest are evicted first."],
  ["an age", { bytes_max: null }, 1, "Kept for 30 d; the oldest are evicted first."],
  ["no limit", { age_ms: null, bytes_max: null }, 1, NOTHING],
  [
    "a directory of an earlier version",
    { age_ms: null, bytes_max: null, beyond_defaults: { age_ms: 30 * DAY_MS, files: 12, bytes: 3 * 2 ** 20 } },
    1,
    `${NOTHING} The 30 d of a new directory would evict 12 files, 3.00 MiB.`,
  ],
  ["roll-ups", {}, 2, "Windows become longer: 1 min after 1 d, 10 min after 7 d."],
])("tells %s", (_, change, line, text) => {
  expect(describeKept({ ...KEPT, ...change }, [], "utc")[line]).toBe(text);
});

it.each([
  ["one file", 1, "Damaged: chunk 3 of section tree has a wrong checksum. Answers that need it say that they are incomplete."],
  ["several", 3, "Damaged: chunk 3 of section tree has a wrong checksum, and 2 other files. Answers that need it say that they are incomplete."],
])("tells damage of %s", (_, count, text) => {
  const damaged: UnreadWindows = { from_ms: 0, to_ms: 1, windows: 1, samples: 0, cpu_ns: 0, reason: "chunk 3 of section tree has a wrong checksum" };
  expect(describeKept(KEPT, Array<UnreadWindows>(count).fill(damaged), "utc")[1]).toBe(text);
});
