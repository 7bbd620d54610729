import { describe, expect, it } from "vitest";
import type { QuestionProgress } from "../../src/api/shapes.ts";
import { describeProgress } from "../../src/views/progress-text.ts";

const READ: QuestionProgress = { state: "reading", position: 0, segments: 24, segments_read: 3, bytes: 800, bytes_read: 200 };

describe("describeProgress", () => {
  it.each<[Partial<QuestionProgress>, string, number | null]>([
    [{ state: "waiting", position: 3 }, "Waiting for other queries: place 3 in the server's queue", null],
    [{ state: "waiting" }, "Waiting for the server", null],
    [{}, "Reading profiles: 3 of 24 segments", 0.25],
    [{ segments: 1, segments_read: 0, bytes: 0, bytes_read: 0 }, "Reading profiles: 0 of 1 segment", 0],
    [{ segments: 0 }, "Reading profiles", null],
    [{ state: "rendering" }, "24 segments read, preparing the answer", 1],
  ])("describes %j", (progress, text, share) => {
    expect(describeProgress({ ...READ, ...progress })).toEqual({ text, share });
  });
});
