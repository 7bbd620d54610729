// Sends one request to the server and returns the answer, or throws an error that describes the
// failure.
import { followQuestion, type ProgressListener } from "./progress.ts";
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

/** How a request is sent, and who hears of it. */
export interface Asking {
  signal?: AbortSignal;
  /** Called while the server works on a question that takes long; with null when it ends. Not called after the signal fired. */
  onProgress?: ProgressListener;
}

/**
 * Requests JSON.
 * @throws RefusedError, UnreachableError, or an AbortError when the signal fired
 */
export async function getJson<T>(route: string, parameters: Parameters, asking: Asking = {}): Promise<T> {
  const body = await getBytes(route, parameters, "application/json", asking);
  try {
    return parseJson<T>(body);
  } catch {
    throw new UnreachableError("the server answered with something that is not JSON");
  }
}

/**
 * Requests an answer of a media type.
 * @throws as `getJson`
 */
export async function getBytes(route: string, parameters: Parameters, accept: string, { signal, onProgress }: Asking = {}): Promise<ArrayBuffer> {
  const followed = onProgress && followQuestion((progress) => !signal?.aborted && onProgress(progress));
  let response: Response;
  let body: ArrayBuffer;
  try {
    const [url, request] = writeRequest(route, parameters);
    response = await fetch(url, { ...request, ...(signal && { signal }), headers: { accept, ...followed?.headers } });
    // Before the body is read: the time that a long answer takes would look like a slow clock.
    compareClocks(response);
    body = await response.arrayBuffer();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new UnreachableError("the server does not answer");
  } finally {
    followed?.stop();
  }
  if (!response.ok) throw readRefusal(response.status, body);
  return body;
}

function parseJson<T>(body: ArrayBuffer): T {
  return JSON.parse(new TextDecoder().decode(body)) as T;
}

function readRefusal(status: number, body: ArrayBuffer): Error {
  try {
    const { error } = parseJson<{ error?: ApiErrorBody }>(body);
    if (typeof error?.message === "string") return new RefusedError(status, error);
  } catch {
    // The body is not ours: a proxy between browser and server answered.
  }
  return new UnreachableError(`the server answered ${status}`);
}
