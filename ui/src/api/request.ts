// Sends one request to the server and returns the answer, or throws an error that describes the
// failure.
import type { ApiErrorBody } from "./shapes.ts";

export type Parameters = Record<string, string | number | undefined>;

/** The server answered with an error; `body` describes it. */
export class RefusedError extends Error {
  constructor(
    readonly status: number,
    readonly body: ApiErrorBody,
  ) {
    super(body.message);
  }
}

/** The server did not answer, or its answer is not in the API's form. */
export class UnreachableError extends Error {}

/** Milliseconds by which the server's clock is ahead of the browser's, from the last answer. */
let serverAheadMs = 0;

/**
 * Smaller differences are ignored: the `Date` header has whole seconds, and the answer took some
 * time to arrive.
 */
const CLOCK_TOLERANCE_MS = 3_000;

/**
 * Reads the time of the server's clock, so that "the last 5 minutes" is right on a laptop whose
 * clock is minutes off.
 */
export function readServerClock(): number {
  return Date.now() + serverAheadMs;
}

function compareClocks(response: Response): void {
  const date = Date.parse(response.headers.get("date") ?? "");
  if (Number.isNaN(date)) return;
  const ahead = date + 500 - Date.now();
  serverAheadMs = Math.abs(ahead) > CLOCK_TOLERANCE_MS ? ahead : 0;
}

/**
 * Builds the URL of an API route, relative to the page, which may be below a path prefix. Parameters
 * with the value `undefined` are left out.
 */
export function writeUrl(route: string, parameters: Parameters): string {
  const fields = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) if (value !== undefined) fields.set(name, String(value));
  const text = fields.toString();
  return `api/v1/${route}${text === "" ? "" : `?${text}`}`;
}

/** Common proxies take URLs of 8 KB, with all header fields. */
const URL_CHARACTERS_MAX = 4_000;

/** A GET, or a POST if the URL would be too long: a zoom path may have hundreds of long names. */
function writeRequest(route: string, parameters: Parameters): [string, RequestInit] {
  const url = writeUrl(route, parameters);
  if (url.length <= URL_CHARACTERS_MAX) return [url, {}];
  return [writeUrl(route, {}), { method: "POST", body: JSON.stringify(parameters) }];
}

/** Reads the bytes of an answer in chunks; `finish` throws the same errors as `JSON.parse`. */
export interface BodyReader<T> {
  /** Takes the next chunk, and keeps no reference to it: the caller reuses the chunk's memory. */
  push(chunk: Uint8Array): void;
  finish(): T;
}

/** Collects the whole text, then parses it. */
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

/**
 * Bytes of one read: large enough that the cost per read does not matter, small enough for the
 * processor's cache.
 */
const READ_BYTES = 256 * 1024;

/**
 * Passes the answer's bytes to `push` as they arrive. Reuses one buffer for all reads where the
 * browser supports that.
 */
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

/**
 * Returns null in a browser without byte streams that read into a given buffer (Safari before 26).
 */
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
 * Requests JSON. A caller that expects a very large answer passes its own `reader`.
 * @throws RefusedError, UnreachableError, or an AbortError when the signal fired
 */
export async function getJson<T>(route: string, parameters: Parameters, signal?: AbortSignal, reader: BodyReader<T> = createJsonReader<T>()): Promise<T> {
  const refused = createJsonReader<{ error?: ApiErrorBody }>();
  let response: Response;
  try {
    const [url, request] = writeRequest(route, parameters);
    response = await fetch(url, { ...request, ...(signal && { signal }), headers: { accept: "application/json" } });
    // Before the body is read: the time that a long answer takes would look like a slow clock.
    compareClocks(response);
    if (response.body) await readBody(response.body, response.ok ? reader.push : refused.push);
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new UnreachableError("the server does not answer");
  }
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
    // The body is not ours: a proxy between browser and server answered.
  }
  return new UnreachableError(`the server answered ${status}`);
}
