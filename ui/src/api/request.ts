// One request to the server: the address in, the answer or a described failure out.
import type { ApiErrorBody } from "./shapes.ts";

export type Parameters = Record<string, string | number | undefined>;

/** The server refused; `body` says what was wrong. */
export class RefusedError extends Error {
  constructor(
    readonly status: number,
    readonly body: ApiErrorBody,
  ) {
    super(body.message);
  }
}

/** The server did not answer, or not with what the API promises. */
export class UnreachableError extends Error {}

/** Milliseconds by which the server's clock is ahead of ours, from its last answer. */
let serverAheadMs = 0;

/**
 * Below this a difference is not corrected: the `Date` header has whole seconds,
 * and the answer took its time to come.
 */
const CLOCK_TOLERANCE_MS = 3_000;

/** The time by the server's clock. A laptop that is minutes off must still see "the last 5 minutes". */
export function readServerClock(): number {
  return Date.now() + serverAheadMs;
}

function compareClocks(response: Response): void {
  const date = Date.parse(response.headers.get("date") ?? "");
  if (Number.isNaN(date)) return;
  const ahead = date + 500 - Date.now();
  serverAheadMs = Math.abs(ahead) > CLOCK_TOLERANCE_MS ? ahead : 0;
}

/** Writes an address of the API; parameters without a value are left out. */
export function writeUrl(route: string, parameters: Parameters): string {
  const fields = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) if (value !== undefined) fields.set(name, String(value));
  const text = fields.toString();
  return `/api/v1/${route}${text === "" ? "" : `?${text}`}`;
}

/** Takes an answer's bytes as they come; `finish` throws what `JSON.parse` throws. */
export interface BodyReader<T> {
  /** The chunk's memory is used again after this. */
  push(chunk: Uint8Array): void;
  finish(): T;
}

/** Keeps the text until it is all there, and parses it then. */
export function createJsonReader<T>(): BodyReader<T> {
  const decoder = new TextDecoder();
  let text = "";
  return {
    push: (chunk) => {
      text += decoder.decode(chunk, { stream: true });
    },
    finish: () => JSON.parse(text + decoder.decode()) as T,
  };
}

/** Bytes read at once: enough that the turns between do not count, and fewer than the processor's cache holds. */
const READ_BYTES = 256 * 1024;

/** Hands on the answer's bytes as they come, all in one piece of memory where the browser can do that. */
async function readBody(body: ReadableStream<Uint8Array>, push: (chunk: Uint8Array) => void): Promise<void> {
  const reader = openByteReader(body);
  if (!reader) return readChunks(body.getReader(), push);
  let memory = new ArrayBuffer(READ_BYTES);
  for (;;) {
    const { done, value } = await reader.read(new Uint8Array(memory));
    if (done) return;
    push(value);
    memory = value.buffer;
  }
}

/** Null in a browser that cannot read into memory of ours (Safari before 26). */
function openByteReader(body: ReadableStream<Uint8Array>): ReadableStreamBYOBReader | null {
  try {
    return body.getReader({ mode: "byob" });
  } catch {
    return null;
  }
}

async function readChunks(reader: ReadableStreamDefaultReader<Uint8Array>, push: (chunk: Uint8Array) => void): Promise<void> {
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    push(value);
  }
}

/**
 * Asks for JSON. `reader` is for an answer that is too large to be parsed as others are.
 * @throws RefusedError, UnreachableError, or an AbortError when the signal fired
 */
export async function getJson<T>(route: string, parameters: Parameters, signal?: AbortSignal, reader: BodyReader<T> = createJsonReader<T>()): Promise<T> {
  const refused = createJsonReader<{ error?: ApiErrorBody }>();
  let response: Response;
  try {
    response = await fetch(writeUrl(route, parameters), { ...(signal && { signal }), headers: { accept: "application/json" } });
    if (response.body) await readBody(response.body, response.ok ? reader.push : refused.push);
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new UnreachableError("the server does not answer");
  }
  compareClocks(response);
  if (!response.ok) throw readRefusal(response.status, refused);
  try {
    return reader.finish();
  } catch (error) {
    if (error instanceof SyntaxError) throw new UnreachableError("the server answered with something that is not JSON");
    throw error;
  }
}

function readRefusal(status: number, refused: BodyReader<{ error?: ApiErrorBody }>): Error {
  try {
    const { error } = refused.finish();
    if (typeof error?.message === "string") return new RefusedError(status, error);
  } catch {
    // A proxy on the way answers in its own words.
  }
  return new UnreachableError(`the server answered ${status}`);
}
