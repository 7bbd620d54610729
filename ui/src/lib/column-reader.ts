// Reads the large part of a flame graph's answer, its columns of numbers, from the JSON bytes into
// typed arrays. It works chunk by chunk while the answer arrives, so almost all work is done when
// the last byte comes. `JSON.parse` reads the rest of the answer: the part before the columns as
// soon as the first column begins, the part after them at the end.
//
// `self_ns` is skipped, since it can be computed from the totals. An answer with spaces or
// fractions is not supported: the caller requests it again and uses the slow reader.
import { CLOSE, COMMA, findLastDelimiter, scanNumbers } from "./number-scan.ts";

const [QUOTE, COLON, OPEN] = [0x22, 0x3a, 0x5b];

/** The array type of a column; a column of the kind `skip` is not parsed. */
export type ColumnKind = "int" | "float" | "skip";
export type Column = Int32Array | Float64Array;

export interface ColumnReader {
  /** Takes the next chunk, and keeps no reference to it: the caller reuses the chunk's memory. */
  push(chunk: Uint8Array): void;
  /** The columns that are complete. */
  columns: ReadonlyMap<string, Column>;
  /**
   * Returns the result of `JSON.parse`, but with an empty array in place of each column. Returns
   * null if the JSON is not as compact as the server writes it (spaces, fractions).
   */
  finish(): Record<string, unknown> | null;
}

/**
 * Numbers parsed before they are copied into their column; a block of this size stays in the
 * processor's cache.
 */
const BLOCK_NUMBERS = 4096;

/** Keys of columns are shorter than this, in bytes. */
const KEY_BYTES_MAX = 64;

/**
 * Bytes of the next chunk that are joined to the unread end of the last one; more than a key or a
 * number has.
 */
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

/**
 * A parser state: reads from `at` on and returns the position that it reached. It returns `at` when
 * it needs more bytes.
 */
type Part = (bytes: Uint8Array, at: number) => number;

/**
 * Reads the columns of the object with the key `section`. A column without a kind becomes floats.
 *
 * Searching for the key as bytes is safe: the quotes of a key inside a JSON string would be
 * escaped, so `"nodes":{` can only be a key.
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

  /**
   * Parses the part before the columns while the columns arrive; closing the section and the object
   * makes it valid JSON.
   */
  function parseHead(): void {
    part = readKey;
    try {
      head = JSON.parse(`${text}}}`) as Record<string, unknown>;
    } catch {
      part = ignoreRest;
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
    const lastDelimiter = findLastDelimiter(bytes, at);
    const scanned = scanNumbers(bytes, at, lastDelimiter, block);
    appendBlock(column, block, scanned.count);
    if (scanned.cause === "end") return endColumn(scanned.at);
    if (scanned.cause === "junk") part = ignoreRest;
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

  function ignoreRest(bytes: Uint8Array): number {
    return bytes.length;
  }

  /** Passes the bytes to the parser states in turn, and returns the position that they reached. */
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
      // A copy, so that the unread bytes do not keep the whole chunk alive.
      left = bytes.slice(takeBytes(bytes));
    },
    columns,
    finish() {
      if (part !== readTail) return null;
      return { ...head, ...(JSON.parse(text + decoder.decode()) as Record<string, unknown>) };
    },
  };
}
