import { describe, expect, it } from "vitest";
import { explainFrame, KIND, kindLabel } from "../../src/lib/frame-kind.ts";
import { graftBranch } from "../../src/lib/flame-graft.ts";
import { writeListCommand } from "../../src/lib/pprof-list.ts";
import { describeReason, isBuildId } from "../../src/lib/reasons.ts";
import { treeFromText } from "./tree-text.ts";

/** The codes in server/model/src/unnamed.rs. */
const CODES = ["no_mapping", "anonymous", "file_gone", "no_symbol", "no_build_id", "permission", "corrupt", "limit", "process_unknown", "not_answering", "replaced", "unknown"];

describe("describeReason", () => {
  it.each(CODES)("has texts for %s", (code) => {
    const { label, meaning } = describeReason(code);
    expect(label).not.toContain("_");
    expect(meaning).toMatch(/^[A-Z].{20,}[.]$/);
    expect(meaning).not.toContain("does not know");
  });

  it("has different texts for all codes", () => {
    expect(new Set(CODES.map((code) => describeReason(code).label)).size).toBe(CODES.length);
  });

  it("shows an unknown code, and no property of Object.prototype", () => {
    expect(describeReason("of_a_newer_server").label).toBe("of a newer server");
    expect(describeReason("constructor").meaning).toContain("does not know");
  });
});

describe("isBuildId", () => {
  it("distinguishes a build id from the hash of a file without one", () => {
    expect(["93ac61ec5a8eb139", "file-781692cd655dc705ba9bcb8fb5e12ee5", ""].map(isBuildId)).toEqual([true, false, false]);
  });
});

describe("explainFrame", () => {
  it("explains why a frame has no name", () => {
    expect(explainFrame(KIND.unnamed, "libz.so+0x1f", "no_symbol")).toContain("nothing was found for its build id");
    expect(explainFrame(KIND.unnamed, "libz.so+0x1f", "no_symbol")).toContain("symbols that are found later name it");
    expect(explainFrame(KIND.unnamed, "[anonymous memory]")).toContain("just-in-time compiler");
    expect(explainFrame(KIND.unnamed, "[constructor]")).toBe(explainFrame(KIND.unnamed, ""));
  });

  it("explains for JIT code how to enable names, and their source", () => {
    const unnamed = explainFrame(KIND.unnamed, "[JIT] node", "anonymous", "[JIT] node");
    for (const option of ["--perf-basic-prof", "-XX:+PreserveFramePointer", "Compiler.perfmap", "+JPperf"]) expect(unnamed).toContain(option);
    expect(explainFrame(KIND.unnamed, "[JIT] node+0x1f", "anonymous", "[JIT] node")).not.toContain("found later");
    expect(explainFrame(KIND.native, "JS:*f", undefined, "[JIT] node")).toContain("perf map");
    expect([kindLabel(KIND.native, "[JIT] node"), kindLabel(KIND.native, "/usr/bin/node"), kindLabel(KIND.unnamed, "[JIT] node")]).toEqual(["JIT code", "User code", "Unnamed"]);
  });
});

describe("graftBranch", () => {
  it("keeps the reasons of unnamed frames, including those of the branch", () => {
    const tree = treeFromText("main;?:a+0x1 3\nmain;b 2");
    const branch = treeFromText("c 1\n?:d+0x2 1");
    const put = (of: typeof tree, name: string, buildId: string): Map<number, { reason: string; buildId: string }> =>
      new Map([[of.frames.name.indexOf(name), { reason: "no_symbol", buildId }]]);
    const withWhy = { ...tree, frames: { ...tree.frames, unnamed: put(tree, "a+0x1", "aa") } };
    const branchWithWhy = { ...branch, frames: { ...branch.frames, unnamed: put(branch, "d+0x2", "dd") } };
    const { frames } = graftBranch(withWhy, 3, branchWithWhy);
    const whys = Object.fromEntries([...frames.unnamed].map(([frame, { buildId }]) => [frames.name[frame], buildId]));
    expect(whys).toEqual({ "a+0x1": "aa", "d+0x2": "dd" });
  });
});

describe("writeListCommand", () => {
  it("selects exactly one function, whatever characters its name has", () => {
    expect(writeListCommand("main", "http://a/pprof")).toBe("go tool pprof -list '^main$' http://a/pprof");
    expect(writeListCommand("Vec<[T]>::push(int*)", "http://a/?q={}")).toBe("go tool pprof -list '^Vec<\\[T\\]>::push\\(int\\*\\)$' 'http://a/?q={}'");
  });
});
