// Reads the one large part of a flame graph's answer, its columns of numbers,
// from the JSON's bytes into typed arrays, chunk by chunk while they arrive: when
// the last byte is there, almost all of the work is done. What is before and
// after the columns is left to `JSON.parse`.
import { CLOSE, COMMA, findLastBorder, scanNumbers } from "./number-scan.ts";

const [QUOTE, COLON, OPEN] = [0x22, 0x3a, 0x5b];

/** What a column becomes; one that is skipped is not even read. */
export type ColumnKind = "int" | "float" | "skip";
export type Column = Int32Array | Float64Array;

export interface ColumnReader {
  /** Takes the next bytes. It keeps none of them: the chunk's memory may be used again. */
  push(chunk: Uint8Array): void;
  /** The columns that are complete. */
  columns: ReadonlyMap<string, Column>;
  /**
   * What `JSON.parse` would give, but with an empty array in the place of each
   * column; null when the answer is not written as compactly as the server writes
   * it (spaces, fractions).
   */
  finish(): Record<string, unknown> | null;
}

/** Numbers read before they are put into their column: they stay in the processor's cache. */
const BLOCK_NUMBERS = 4096;

/** A key is no longer than this, in bytes. */
const KEY_BYTES_MAX = 64;

/** So much of the next chunk is joined to what the last one left; longer than a key or a number. */
const SEAM_BYTES = 2 * KEY_BYTES_MAX;

interface GrowingColumn {
  kind: ColumnKind;
  values: Column;
  count: number;
}

function createColumn(kind: ColumnKind, capacity: number): GrowingColumn {
  const length = kind === "skip" ? 0 : capacity;
  return { kind, values: kind === "int" ? new Int32Array(length) : new Float64Array(length), count: 0 };
}

function appendBlock(column: GrowingColumn, block: Float64Array, count: number): void {
  const { values } = column;
  if (column.count + count > values.length) {
    const length = Math.max(values.length * 2, column.count + count);
    column.values = values instanceof Int32Array ? new Int32Array(length) : new Float64Array(length);
    column.values.set(values);
  }
  column.values.set(block.subarray(0, count), column.count);
  column.count += count;
}

function joinBytes(first: Uint8Array, second: Uint8Array): Uint8Array {
  const joined = new Uint8Array(first.length + second.length);
  joined.set(first);
  joined.set(second, first.length);
  return joined;
}

function findBytes(bytes: Uint8Array, wanted: Uint8Array, from: number): number {
  const first = wanted[0]!;
  for (let at = bytes.indexOf(first, from); at >= 0; at = bytes.indexOf(first, at + 1)) {
    let length = 1;
    while (length < wanted.length && bytes[at + length] === wanted[length]) length += 1;
    if (length === wanted.length) return at;
  }
  return -1;
}

/** A part of the answer: takes bytes from `at` on and says up to where; the same place when it needs more of them. */
type Part = (bytes: Uint8Array, at: number) => number;

/**
 * Takes the number columns out of the object that the key `section` names. Columns
 * without a kind become floats.
 *
 * Looking for the key as bytes is safe: inside a JSON string its quotes would be
 * escaped, so that `"nodes":{` can only be a key.
 */
export function createColumnReader(section: string, kinds: Readonly<Record<string, ColumnKind>>): ColumnReader {
  const opening = new TextEncoder().encode(`"${section}":{`);
  const decoder = new TextDecoder();
  const block = new Float64Array(BLOCK_NUMBERS);
  const columns = new Map<string, Column>();
  let name = "";
  let column = createColumn("skip", 0);
  let head: Record<string, unknown> = {};
  let text = "";
  let left: Uint8Array = new Uint8Array(0);
  let part: Part = readHead;

  function readHead(bytes: Uint8Array, at: number): number {
    const found = findBytes(bytes, opening, at);
    const to = found >= 0 ? found + opening.length : Math.max(at, bytes.length - opening.length + 1);
    text += decoder.decode(bytes.subarray(at, to), { stream: found < 0 });
    if (found >= 0) parseHead();
    return to;
  }

  /** What came so far is an object but for the section's end: it is parsed while the columns are on their way. */
  function parseHead(): void {
    part = readKey;
    try {
      head = JSON.parse(`${text}}}`) as Record<string, unknown>;
    } catch {
      part = giveUp;
    }
    text = `{"${section}":{`;
  }

  function readKey(bytes: Uint8Array, at: number): number {
    const end = bytes[at] === QUOTE ? bytes.indexOf(QUOTE, at + 1) : at;
    const tooShort = end < 0 ? bytes.length - at < KEY_BYTES_MAX : end > at && end + 2 >= bytes.length;
    if (tooShort) return at;
    if (end <= at || bytes[end + 1] !== COLON || bytes[end + 2] !== OPEN) {
      part = readTail;
      return at;
    }
    name = new TextDecoder().decode(bytes.subarray(at + 1, end));
    const capacity = columns.values().next().value?.length ?? BLOCK_NUMBERS;
    column = createColumn(kinds[name] ?? "float", capacity);
    part = column.kind === "skip" ? skipNumbers : readNumbers;
    return end + 3;
  }

  function readNumbers(bytes: Uint8Array, at: number): number {
    if (column.count === 0 && bytes[at] === CLOSE) return endColumn(at);
    const border = findLastBorder(bytes, at);
    const scanned = scanNumbers(bytes, at, border, block);
    appendBlock(column, block, scanned.count);
    if (scanned.met === "end") return endColumn(scanned.at);
    if (scanned.met === "junk") part = giveUp;
    return scanned.at;
  }

  function skipNumbers(bytes: Uint8Array, at: number): number {
    const end = bytes.indexOf(CLOSE, at);
    return end < 0 ? bytes.length : endColumn(end);
  }

  function endColumn(at: number): number {
    if (column.kind !== "skip") columns.set(name, column.values.subarray(0, column.count));
    text += `"${name}":[]`;
    part = readComma;
    return at + 1;
  }

  function readComma(bytes: Uint8Array, at: number): number {
    const more = bytes[at] === COMMA;
    part = more ? readKey : readTail;
    if (more) text += ",";
    return more ? at + 1 : at;
  }

  function readTail(bytes: Uint8Array, at: number): number {
    text += decoder.decode(bytes.subarray(at), { stream: true });
    return bytes.length;
  }

  function giveUp(bytes: Uint8Array): number {
    return bytes.length;
  }

  /** Hands the bytes to the parts in turn, and gives the place up to which they took them. */
  function takeBytes(bytes: Uint8Array): number {
    let at = 0;
    while (at < bytes.length) {
      const before = part;
      const to = part(bytes, at);
      if (to === at && part === before) break;
      at = to;
    }
    return at;
  }

  return {
    push(chunk) {
      let bytes = chunk;
      if (left.length > 0) {
        const taken = takeBytes(joinBytes(left, chunk.subarray(0, SEAM_BYTES)));
        bytes = taken < left.length ? joinBytes(left.subarray(taken), chunk) : chunk.subarray(taken - left.length);
      }
      // A copy, so that what is left does not keep its whole chunk.
      left = bytes.slice(takeBytes(bytes));
    },
    columns,
    finish() {
      if (part !== readTail) return null;
      return { ...head, ...(JSON.parse(text + decoder.decode()) as Record<string, unknown>) };
    },
  };
}
