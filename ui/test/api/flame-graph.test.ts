// The flame graph's answer as the page reads it, over the fixture's answers.
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
    // Worked out by the page, not read.
    const own = [...tree.self].filter((_, node) => tree.frame[node] !== CUT_FRAME);
    expect(own).toEqual(answer.nodes.self_ns.filter((_, node) => answer.nodes.frame[node] !== CUT_FRAME));
    const unnamed = Object.entries(answer.frames.unnamed ?? {}).map(([frame, { reason, build_id: id }]) => [Number(frame), { reason, buildId: answer.strings[id] }]);
    expect(unnamed.length).toBeGreaterThan(0);
    expect([...tree.frames.unnamed]).toEqual(unnamed);
    expect(tree.frames.name[tree.frame[1]!]).toBe(answer.strings[answer.frames.name[answer.nodes.frame[1]!]!]);
  });

  it("reads the same in chunks of any size", () => {
    const text = JSON.stringify(ask(300));
    expect(read(text, 7)).toEqual(read(text));
  });

  it("says what is wrong with a tree only once all of it is there", () => {
    const answer = ask(300);
    answer.nodes.depth[1] = 3;
    expect(() => read(JSON.stringify(answer))).toThrow(new TreeError("node 1 has no parent"));
  });
});

describe("fetchFlameGraph", () => {
  const selection: Selection = { query: "{}", range: { fromMs: 0, toMs: 1 } };
  afterEach(() => vi.unstubAllGlobals());

  it("reads the same however the answer is written", async () => {
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
