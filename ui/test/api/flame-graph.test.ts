// Reading the flame graph's answer, with answers of the fixture server.
import { readFileSync } from "node:fs";
import { afterEach, describe, expect, it, vi, type Mock } from "vitest";
import { fetchFlameGraph, readFlameGraph, type Selection } from "../../src/api/routes.ts";
import { ColumnsError } from "../../src/lib/columns.ts";
import { CUT_FRAME, TreeError } from "../../src/lib/flame-tree.ts";
import { answerFlameGraph } from "../fixture/answers.ts";
import { createCluster } from "../fixture/cluster.ts";
import { COLUMNS, writeFlameGraph, type FlameGraphJson } from "../fixture/columns.ts";

const NOW_MS = Date.UTC(2026, 10, 23, 2, 15, 0);

function ask(nodesMax: number, path: string[] = []): FlameGraphJson {
  const range = { fromMs: NOW_MS - 900_000, toMs: NOW_MS };
  return structuredClone(answerFlameGraph({ cluster: createCluster(NOW_MS), matchers: [], range }, nodesMax, path)!);
}

describe("readFlameGraph", () => {
  it.each([1_000_000, 300])("reads each column as the server wrote it, with at most %d nodes", (nodesMax) => {
    const answer = ask(nodesMax);
    const { tree, totalNs } = readFlameGraph(writeFlameGraph(answer));
    expect(totalNs).toBe(answer.total_ns);
    expect([...tree.depth]).toEqual(answer.nodes.depth);
    expect([...tree.frame]).toEqual(answer.nodes.frame);
    expect([...tree.total]).toEqual(answer.nodes.total_ns);
    expect([...tree.samples]).toEqual(answer.nodes.samples);
    // The page computes the self times.
    const own = [...tree.self].filter((_, node) => tree.frame[node] !== CUT_FRAME);
    expect(own).toEqual(answer.nodes.self_ns.filter((_, node) => answer.nodes.frame[node] !== CUT_FRAME));
    const unnamed = Object.entries(answer.frames.unnamed ?? {}).map(([frame, { reason, build_id: id }]) => [Number(frame), { reason, buildId: answer.strings[id] }]);
    expect(unnamed.length).toBeGreaterThan(0);
    expect([...tree.frames.unnamed]).toEqual(unnamed);
    for (const text of ["name", "binary", "file"] as const) expect(tree.frames[text]).toEqual(answer.frames[text].map((index) => answer.strings[index]));
    expect([tree.frames.line, tree.frames.kind]).toEqual([answer.frames.line, answer.frames.kind]);
  });

  it("reads what the server writes", () => {
    const read = (name: string): Buffer => readFileSync(new URL(`../fixture/${name}`, import.meta.url));
    const written = new Uint8Array(read("graph.columns"));
    const answer = JSON.parse(read("graph.json").toString()) as FlameGraphJson;
    expect(readFlameGraph(written.buffer)).toEqual(readFlameGraph(writeFlameGraph(answer)));
    expect(new Uint8Array(writeFlameGraph(answer)).length).toBe(written.length);
  });

  it("reads the times of samples that differ", () => {
    const answer = ask(300);
    answer.nodes.samples[3]! += 1;
    expect([...readFlameGraph(writeFlameGraph(answer)).tree.total]).toEqual(answer.nodes.total_ns);
  });

  it("reads which windows the server could not read", () => {
    const incomplete = [{ from_ms: 0, to_ms: 3_600_000, windows: 2, samples: 34, cpu_ns: 340_000_000, reason: "damaged record: a section's checksum is wrong" }];
    expect(readFlameGraph(writeFlameGraph({ ...ask(300), incomplete })).incomplete).toEqual(incomplete);
    expect(readFlameGraph(writeFlameGraph(ask(300))).incomplete).toEqual([]);
  });

  it.each<[string, (answer: FlameGraphJson) => void, Error]>([
    ["a node without a parent", ({ nodes }) => (nodes.depth[1] = 3), new TreeError("node 1 has no parent")],
    ["a node without a frame", ({ nodes }) => (nodes.frame[1] = 1e6), new TreeError("node 1 has no frame")],
    ["callees that took longer than their caller", ({ nodes }) => (nodes.total_ns[2]! *= 100), new TreeError("node 1 took less time than its callees")],
    ["a frame without a name", ({ frames }) => (frames.name[0] = 1e6), new ColumnsError("the server's answer has no string 1000000")],
    ["fewer nodes than its head says", (answer) => (answer.shown_nodes += 1), new ColumnsError("the columns of the server's answer do not belong to its head")],
    ["another total than its head says", (answer) => (answer.total_ns += 1), new ColumnsError("the columns of the server's answer do not belong to its head")],
    ["columns of different length", ({ nodes }) => nodes.samples.pop(), new TreeError("the flame graph's columns differ in length")],
  ])("refuses %s", (_, change, error) => {
    const answer = ask(300);
    change(answer);
    expect(() => readFlameGraph(writeFlameGraph(answer))).toThrow(error);
  });
});

describe("fetchFlameGraph", () => {
  const selection: Selection = { query: "{}", range: { fromMs: 0, toMs: 1 } };
  afterEach(() => vi.unstubAllGlobals());

  it("sends a path that is too long for a URL in a body", async () => {
    const fetch = vi.fn(async () => new Response(writeFlameGraph(ask(300))));
    vi.stubGlobal("fetch", fetch);
    const names = Array.from({ length: 800 }, (_, depth) => `namespace::Type<${"T".repeat(100)}>::function_${depth}`);
    await fetchFlameGraph(selection, { path: names });
    await fetchFlameGraph(selection, { path: ["main"] });
    const [long, short] = fetch.mock.calls as unknown as [string, RequestInit][];
    expect([long![0], long![1].method]).toEqual(["api/v1/flamegraph", "POST"]);
    const body = JSON.parse(long![1].body as string) as Record<string, unknown>;
    expect(JSON.parse(body["path"] as string)).toEqual(names);
    expect(body).toMatchObject({ query: "{}", from: 0, to: 1 });
    expect([short![0], short![1].method]).toEqual(["api/v1/flamegraph?query=%7B%7D&from=0&to=1&path=%5B%22main%22%5D", undefined]);
  });

  it("asks for columns, and shows no other answer", async () => {
    const body = writeFlameGraph(ask(300));
    const answerWith = (answer: BodyInit): Mock => {
      const fetch = vi.fn(async () => new Response(answer));
      vi.stubGlobal("fetch", fetch);
      return fetch;
    };
    const whole = answerWith(body);
    expect(await fetchFlameGraph(selection, {})).toEqual(readFlameGraph(body));
    expect(whole.mock.calls[0]![1]).toMatchObject({ headers: { accept: COLUMNS } });
    answerWith(body.slice(0, -8));
    await expect(fetchFlameGraph(selection, {})).rejects.toThrow("the server's answer breaks off in");
    answerWith(JSON.stringify(ask(300)));
    await expect(fetchFlameGraph(selection, {})).rejects.toThrow("not in the form of columns");
  });
});
