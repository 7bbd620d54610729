// Reads the binary form of an answer, which docs/api.md describes under "Columns": a line with the
// form's name and version, a line of JSON, then columns of numbers. The columns become typed arrays
// over the answer's own memory, without a copy. Browsers run on little-endian machines only, which
// is the order of the bytes.

export type Column = Uint8Array | Uint16Array | Uint32Array | Int16Array | Int32Array | Float64Array;

export interface ColumnsAnswer {
  /** The JSON of the answer, without its columns. */
  answer: Record<string, unknown>;
  columns: ReadonlyMap<string, Column>;
}

/** The bytes are not an answer in this form. */
export class ColumnsError extends Error {}

const FORM = "pilotlight columns ";
const VERSION = "1";

const TYPES = { u8: Uint8Array, u16: Uint16Array, u32: Uint32Array, i16: Int16Array, i32: Int32Array, f64: Float64Array };

/** Each column begins at a multiple of this. */
const ALIGNMENT = 8;

const NEWLINE = 0x0a;

interface ColumnEntry {
  name: string;
  type: keyof typeof TYPES;
  count: number;
}

interface Head {
  columns: ColumnEntry[];
  answer: Record<string, unknown>;
}

/** @throws ColumnsError */
export function readColumns(buffer: ArrayBuffer): ColumnsAnswer {
  const bytes = new Uint8Array(buffer);
  const headFrom = readForm(bytes);
  const headTo = bytes.indexOf(NEWLINE, headFrom) + 1;
  if (headTo === 0) throw new ColumnsError("the server's answer breaks off in its head");
  const { columns: entries, answer } = parseHead(bytes.subarray(headFrom, headTo));
  const columns = new Map<string, Column>();
  let at = headTo;
  for (const { name, type, count } of entries) {
    const length = count * TYPES[type].BYTES_PER_ELEMENT;
    if (at % ALIGNMENT !== 0) throw new ColumnsError(`the server's answer has the column ${name} at an odd place`);
    if (at + length > bytes.length) throw new ColumnsError(`the server's answer breaks off in the column ${name}`);
    columns.set(name, new TYPES[type](buffer, at, count));
    at += Math.ceil(length / ALIGNMENT) * ALIGNMENT;
  }
  if (at !== bytes.length) throw new ColumnsError(`the server's answer has ${bytes.length} bytes, and its head says ${at}`);
  return { answer, columns };
}

/** @throws ColumnsError */
export function takeColumn(columns: ReadonlyMap<string, Column>, name: string): Column {
  const column = columns.get(name);
  if (!column) throw new ColumnsError(`the server's answer has no column ${name}`);
  return column;
}

/** Checks the first line, and returns the position after it. */
function readForm(bytes: Uint8Array): number {
  const end = bytes.subarray(0, 64).indexOf(NEWLINE);
  const line = new TextDecoder().decode(bytes.subarray(0, Math.max(0, end)));
  if (!line.startsWith(FORM)) throw new ColumnsError("the server's answer is not in the form of columns");
  const version = line.slice(FORM.length);
  if (version !== VERSION) throw new ColumnsError("the server has another version than this page: reload the page");
  return end + 1;
}

function parseHead(bytes: Uint8Array): Head {
  let head: Partial<Head> | null;
  try {
    head = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes)) as Partial<Head> | null;
  } catch {
    throw new ColumnsError("the head of the server's answer is not JSON");
  }
  const { columns, answer } = head ?? {};
  if (!Array.isArray(columns) || !columns.every(isColumnEntry) || typeof answer !== "object" || answer === null) {
    throw new ColumnsError("the head of the server's answer does not list its columns");
  }
  return { columns, answer };
}

function isColumnEntry(entry: Partial<ColumnEntry> | null): entry is ColumnEntry {
  const { name, type, count } = entry ?? {};
  return typeof name === "string" && Object.keys(TYPES).includes(type!) && Number.isSafeInteger(count) && count! >= 0;
}
