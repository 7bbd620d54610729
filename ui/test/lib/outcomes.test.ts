import { describe, expect, it } from "vitest";
import { colourFrames, COLOUR } from "../../src/lib/colour.ts";
import { explainFrame, KIND } from "../../src/lib/frame-kind.ts";
import { describeOutcome, LEFT_OUT_NAME } from "../../src/lib/outcomes.ts";
import { treeFromText } from "./tree-text.ts";

/** The codes in server/model/src/outcome.rs. */
const CODES = [
  "complete", "kernel_only", "copied", "middle_left_out", "by_instructions", "uncertain", "undecided", "cut_at_depth", "cut_by_budget", "unreadable", "bad_frame_pointer", "bad_frame",
  "bad_return_address", "rule_unsupported", "no_rows", "stale_rows", "compat_32", "process_unknown",
];

describe("describeOutcome", () => {
  it.each(CODES)("has texts for %s", (code) => {
    const { label, meaning } = describeOutcome(code);
    expect(label).not.toContain("_");
    expect(meaning).toMatch(/^[A-Z].{20,}[.]$/);
    expect(meaning).not.toContain("does not know");
  });

  it("has different texts for all codes", () => {
    expect(new Set(CODES.map((code) => describeOutcome(code).label)).size).toBe(CODES.length);
    expect(new Set(CODES.map((code) => describeOutcome(code).meaning)).size).toBe(CODES.length);
  });

  it("shows an unknown code, and no property of Object.prototype", () => {
    expect(describeOutcome("of_a_newer_collector").label).toBe("of a newer collector");
    expect(describeOutcome("constructor").label).toBe("constructor");
    expect(describeOutcome("__proto__").meaning).toContain("does not know");
  });
});

it("explains the frame that stands for omitted frames, and hatches it", () => {
  const tree = treeFromText(`main;${LEFT_OUT_NAME};work 3`);
  expect(explainFrame(KIND.native, LEFT_OUT_NAME)).toContain("first and the last 512");
  expect(colourFrames(tree).colourOf(tree.frame[2]!)).toBe(COLOUR.unnamed);
});
