import { describe, expect, it } from "vitest";
import { createColumnReader, type Column } from "../../src/lib/column-reader.ts";
import { createRandom } from "../fixture/random.ts";

interface Parts {
  rest: Record<string, unknown>;
  columns: ReadonlyMap<string, Column>;
}

/**
 * Reads a text in chunks of the given sizes, repeating the last size. All chunks share one buffer.
 */
function split(text: string, ...sizes: number[]): Parts | null {
  const bytes = new TextEncoder().encode(text);
  const memory = new Uint8Array(bytes.length);
  const reader = createColumnReader("nodes", { depth: "int", frame: "int", dropped: "skip" });
  for (let at = 0, chunk = 0; at < bytes.length; chunk += 1) {
    const size = sizes[Math.min(chunk, sizes.length - 1)] ?? bytes.length;
    const part = bytes.subarray(at, at + size);
    memory.set(part);
    reader.push(memory.subarray(0, part.length));
    memory.fill(0x37);
    at += size;
  }
  const rest = reader.finish();
  return rest && { rest, columns: reader.columns };
}

/** Combines both parts of the answer. */
function join(parts: Parts | null): unknown {
  if (!parts) return null;
  const nodes = { ...(parts.rest["nodes"] as Record<string, unknown>) };
  for (const [name, column] of parts.columns) nodes[name] = [...column];
  return { ...parts.rest, nodes };
}

const VALUES = [
  { a: 1, nodes: { depth: [0, 1, 2], frame: [-1, -2, 0], total_ns: [9007199254740991, 0, 10] }, z: [1] },
  { nodes: { depth: [], frame: [] } },
  { nodes: { depth: [1], cut: { 3: 4, 17: 2 } } },
  { nodes: { cut: {}, depth: [1] } },
  { nodes: { depth: [1], shown: "x" } },
  { nodes: {} },
  { strings: ["ü🔥"], nodes: { total_ns: [999999999, 1000000000, 123456789012, -5, 999999999999999, 1000000000000000] }, after: "ü🔥" },
  { strings: ['"nodes":{"depth":[1,2]}', 'nodes":{', "\\", '\\"nodes":{'], nodes: { depth: [5] } },
  { nodes: { depth: [5] }, strings: ['"nodes":{"depth":[1,2]}'] },
  { nodes: { depth: Array.from({ length: 500 }, (_, at) => at * 7) } },
  { nodes: { [`${"long".repeat(30)}`]: [1, 2], depth: [3] } },
];

describe("createColumnReader", () => {
  it.each(VALUES)("reads the same as JSON.parse %#", (value) => {
    expect(join(split(JSON.stringify(value)))).toEqual(value);
  });

  it.each(VALUES)("reads the same in chunks of any size %#", (value) => {
    const text = JSON.stringify(value);
    for (let size = 1; size < 200; size += 1) expect(join(split(text, size)), `chunks of ${size} bytes`).toEqual(value);
    for (let first = 1; first < Math.min(text.length, 300); first += 1) expect(join(split(text, first, 1e9)), `first chunk of ${first} bytes`).toEqual(value);
  });

  it("reads the same in chunks of random sizes", () => {
    const random = createRandom(11);
    const numbers = (most: number): number[] => Array.from({ length: 10_000 }, () => random.below(10 ** (1 + random.below(most))));
    const value = { strings: ["ü".repeat(500)], nodes: { depth: numbers(3), frame: numbers(6), total_ns: numbers(15) } };
    const text = JSON.stringify(value);
    for (let round = 0; round < 8; round += 1) {
      const sizes = Array.from({ length: 50 }, () => 1 + random.below(2 ** (1 + random.below(16))));
      expect(join(split(text, ...sizes))).toEqual(value);
    }
  });

  it("makes typed arrays of the given kinds, and skips columns of the kind skip", () => {
    const { columns, rest } = split('{"nodes":{"depth":[0,1],"dropped":[1,2],"total_ns":[5,6]},"z":1}')!;
    expect(columns.get("depth")).toEqual(Int32Array.of(0, 1));
    expect(columns.get("total_ns")).toEqual(Float64Array.of(5, 6));
    expect([...columns.keys()]).toEqual(["depth", "total_ns"]);
    expect(rest).toEqual({ nodes: { depth: [], dropped: [], total_ns: [] }, z: 1 });
  });

  it.each(['{"nodes": {"depth":[1]}}', '{"nodes":{"depth":[1.5]}}', '{"nodes":{"depth":[1, 2]}}', '{"nodes":{"depth":[1e3]}}', '{"nodes":{"depth":[null]}}', '{"nodes":{"depth":[1', '{"nodes":{"depth":[-]}}', '{"nodes":{"depth":[1,]}}', '{"nodes":{"dropped":[1', '{"nodes":{"depth', "{}", ""])(
    "leaves %s to JSON.parse",
    (text) => {
      for (let size = 1; size <= text.length + 1; size += 1) expect(split(text, size)).toBeNull();
    },
  );
});
