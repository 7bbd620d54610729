// Reading the flame graph's answer, with answers of the fixture server.
import { afterEach, describe, expect, it, vi, type Mock } from "vitest";
import { createFlameGraphReader, fetchFlameGraph, type FlameGraph, type Selection } from "../../src/api/routes.ts";
import type { FlameGraphAnswer } from "../../src/api/shapes.ts";
import { CUT_FRAME, TreeError } from "../../src/lib/flame-tree.ts";
import { answerFlameGraph } from "../fixture/answers.ts";
import { createCluster } from "../fixture/cluster.ts";

const NOW_MS = Date.UTC(2026, 10, 23, 2, 15, 0);

function ask(nodesMax: number): FlameGraphAnswer {
  const range = { fromMs: NOW_MS - 900_000, toMs: NOW_MS };
  return answerFlameGraph({ cluster: createCluster(NOW_MS), matchers: [], range }, nodesMax, [])!;
}

function read(text: string, chunkBytes = 65_536): FlameGraph | null {
  const bytes = new TextEncoder().encode(text);
  const reader = createFlameGraphReader();
  for (let at = 0; at < bytes.length; at += chunkBytes) reader.push(bytes.subarray(at, at + chunkBytes));
  return reader.finish();
}

describe("createFlameGraphReader", () => {
  it.each([1_000_000, 300])("reads each column as the server wrote it, with at most %d nodes", (nodesMax) => {
    const answer = ask(nodesMax);
    const { tree, nodeCount, totalNs } = read(JSON.stringify(answer))!;
    expect([nodeCount, totalNs]).toEqual([answer.node_count, answer.total_ns]);
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
    expect(tree.frames.name[tree.frame[1]!]).toBe(answer.strings[answer.frames.name[answer.nodes.frame[1]!]!]);
  });

  it("reads what follows the columns", () => {
    const incomplete = [{ from_ms: 0, to_ms: 3_600_000, windows: 2, samples: 34, cpu_ns: 340_000_000, reason: "damaged record: a section's checksum is wrong" }];
    expect(read(JSON.stringify({ ...ask(300), incomplete }), 7)!.incomplete).toEqual(incomplete);
    expect(read(JSON.stringify(ask(300)))!.incomplete).toEqual([]);
  });

  it("reads the same in chunks of any size", () => {
    const text = JSON.stringify(ask(300));
    expect(read(text, 7)).toEqual(read(text));
  });

  it("reports an invalid tree only at the end", () => {
    const answer = ask(300);
    answer.nodes.depth[1] = 3;
    expect(() => read(JSON.stringify(answer))).toThrow(new TreeError("node 1 has no parent"));
  });
});

describe("fetchFlameGraph", () => {
  const selection: Selection = { query: "{}", range: { fromMs: 0, toMs: 1 } };
  afterEach(() => vi.unstubAllGlobals());

  it("sends a path that is too long for a URL in a body", async () => {
    const fetch = vi.fn(async () => new Response(JSON.stringify(ask(300))));
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

  it("gives the same result for any JSON formatting", async () => {
    const answer = ask(300);
    const answerWith = (text: string): Mock => {
      const fetch = vi.fn(async () => new Response(text));
      vi.stubGlobal("fetch", fetch);
      return fetch;
    };
    const compact = answerWith(JSON.stringify(answer));
    const graph = await fetchFlameGraph(selection, {});
    expect(compact).toHaveBeenCalledTimes(1);
    const spaced = answerWith(JSON.stringify(answer, null, 2));
    expect(await fetchFlameGraph(selection, {})).toEqual(graph);
    expect(spaced).toHaveBeenCalledTimes(2);
  });
});
