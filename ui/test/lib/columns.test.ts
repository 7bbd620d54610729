import { describe, expect, it } from "vitest";
import { ColumnsError, readColumns, takeColumn } from "../../src/lib/columns.ts";
import { writeColumns, type Column } from "../fixture/columns.ts";
import { createRandom } from "../fixture/random.ts";

const COLUMNS: Column[] = [
  { name: "kind", type: "u8", values: [0, 255, 3] },
  { name: "none", type: "f64", values: [] },
  { name: "name", type: "u32", values: [0, 4_294_967_295] },
  { name: "frame", type: "i32", values: [-1, -2, 2_147_483_647] },
  { name: "depth", type: "u16", values: [65_535, 1] },
  { name: "line", type: "i16", values: [-32_768] },
  { name: "total", type: "f64", values: [0, 9_007_199_254_740_991, 1e18] },
];
const ANSWER = { strings: ["", "ü🔥\n"], total: 7 };

function errorOf(bytes: ArrayBuffer): string {
  try {
    readColumns(bytes);
    return "";
  } catch (error) {
    expect(error).toBeInstanceOf(ColumnsError);
    return (error as Error).message;
  }
}

/** An answer with this text in place of the form's name and the head. */
const withText = (text: string): string => errorOf(new TextEncoder().encode(text).buffer);

describe("readColumns", () => {
  it("reads each type of column, on the memory of the answer", () => {
    const bytes = writeColumns(ANSWER, COLUMNS);
    const { answer, columns } = readColumns(bytes);
    expect(answer).toEqual(ANSWER);
    for (const { name, values } of COLUMNS) expect([...columns.get(name)!]).toEqual(values);
    for (const column of columns.values()) expect(column.buffer).toBe(bytes);
  });

  it("reads heads of any length", () => {
    for (let length = 0; length < 20; length += 1) {
      const read = readColumns(writeColumns({ text: "x".repeat(length) }, COLUMNS));
      expect([...read.columns.get("frame")!]).toEqual(COLUMNS[3]!.values);
    }
  });

  it("refuses an answer that is cut anywhere, and one that is too long", () => {
    const bytes = writeColumns(ANSWER, COLUMNS);
    for (let length = 0; length < bytes.byteLength; length += 1) {
      expect(errorOf(bytes.slice(0, length)), `${length} bytes`).toMatch(/breaks off|not in the form|and its head says/);
    }
    const longer = new Uint8Array(bytes.byteLength + 8);
    longer.set(new Uint8Array(bytes));
    expect(errorOf(longer.buffer)).toContain(`has ${longer.length} bytes, and its head says ${bytes.byteLength}`);
  });

  it("reads garbled bytes or refuses them, and fails in no other way", () => {
    const random = createRandom(5);
    const bytes = writeColumns(ANSWER, COLUMNS);
    for (let round = 0; round < 5_000; round += 1) {
      const garbled = new Uint8Array(bytes.slice(0));
      for (let flips = 0; flips <= round % 4; flips += 1) garbled[random.below(garbled.length)] = random.below(256);
      errorOf(garbled.buffer);
    }
  });

  it.each([
    ['{"error":{}}', "not in the form of columns"],
    ["pilotlight columns 2\n{}\n", "another version than this page: reload"],
    ["pilotlight columns 1\nnull\n", "does not list its columns"],
    ["pilotlight columns 1\n{]\n", "not JSON"],
    ['pilotlight columns 1\n{"columns":[]}\n', "does not list its columns"],
    ['pilotlight columns 1\n{"columns":[null],"answer":{}}\n', "does not list its columns"],
    ['pilotlight columns 1\n{"columns":[{"name":"a","type":"u64","count":1}],"answer":{}}\n', "does not list its columns"],
    ['pilotlight columns 1\n{"columns":[{"name":"a","type":"toString","count":1}],"answer":{}}\n', "does not list its columns"],
    ['pilotlight columns 1\n{"columns":[{"name":"a","type":"u8","count":-1}],"answer":{}}\n', "does not list its columns"],
    ['pilotlight columns 1\n{"columns":[{"name":"a","type":"u8","count":1.5}],"answer":{}}\n', "does not list its columns"],
    ['pilotlight columns 1\n{"columns":[{"name":"a","type":"f64","count":9007199254740991}],"answer":{}}      \n', "breaks off in the column a"],
    ['pilotlight columns 1\n{"columns":[{"name":"a","type":"f64","count":1}],"answer":{}} \n12345678', "at an odd place"],
  ])("refuses %s", (text, expected) => {
    expect(withText(text)).toContain(expected);
  });
});

describe("takeColumn", () => {
  it("names the column that the answer lacks", () => {
    const { columns } = readColumns(writeColumns(ANSWER, COLUMNS));
    expect([...takeColumn(columns, "kind")]).toEqual([0, 255, 3]);
    expect(() => takeColumn(columns, "file")).toThrow(new ColumnsError("the server's answer has no column file"));
  });
});
