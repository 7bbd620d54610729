import { describe, expect, it } from "vitest";
import { splitColumns } from "../../src/lib/number-columns.ts";

const encode = (text: string): Uint8Array => new TextEncoder().encode(text);

/** What the two halves make together. */
function join(text: string): unknown {
  const split = splitColumns(encode(text), "nodes");
  if (!split) return null;
  const value = JSON.parse(split.rest) as { nodes: Record<string, unknown> };
  for (const [name, column] of split.columns) value.nodes[name] = [...column];
  return value;
}

describe("splitColumns", () => {
  it.each([
    { a: 1, nodes: { depth: [0, 1, 2], frame: [-1, -2, 0], total_ns: [9007199254740991, 0, 10] }, z: [1] },
    { nodes: { depth: [], frame: [] } },
    { nodes: { depth: [1], cut: { 3: 4, 17: 2 } } },
    { nodes: { cut: {}, depth: [1] } },
    { nodes: { depth: [1], shown: "x" } },
    { nodes: {} },
    { strings: ["ü🔥"], nodes: { depth: [999999999, 1000000000, 123456789012] }, after: "ü" },
    { strings: ['"nodes":{"depth":[1,2]}', 'nodes":{', "\\", '\\"nodes":{'], nodes: { depth: [5] } },
    { nodes: { depth: [5] }, strings: ['"nodes":{"depth":[1,2]}'] },
    { nodes: { depth: Array.from({ length: 5000 }, (_, at) => at * 7) } },
  ])("reads the same as JSON.parse %#", (value) => {
    expect(join(JSON.stringify(value))).toEqual(value);
  });

  it.each(['{"nodes": {"depth":[1]}}', '{"nodes":{"depth":[1.5]}}', '{"nodes":{"depth":[1, 2]}}', '{"nodes":{"depth":[1e3]}}', '{"nodes":{"depth":[null]}}', '{"nodes":{"depth":[1', '{"nodes":{"depth":[-]}}', "{}", ""])(
    "leaves %s to JSON.parse",
    (text) => expect(splitColumns(encode(text), "nodes")).toBeNull(),
  );
});
