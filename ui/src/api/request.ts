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

/** Reads an answer's bytes; throws what `JSON.parse` throws. */
export type ReadBytes<T> = (bytes: Uint8Array) => T;

function parseJson<T>(bytes: Uint8Array): T {
  return JSON.parse(new TextDecoder().decode(bytes)) as T;
}

/**
 * Asks for JSON. `read` is for an answer that is too large to be parsed as others are.
 * @throws RefusedError, UnreachableError, or an AbortError when the signal fired
 */
export async function getJson<T>(route: string, parameters: Parameters, signal?: AbortSignal, read: ReadBytes<T> = parseJson): Promise<T> {
  let response: Response;
  let bytes: Uint8Array;
  try {
    response = await fetch(writeUrl(route, parameters), { ...(signal && { signal }), headers: { accept: "application/json" } });
    bytes = new Uint8Array(await response.arrayBuffer());
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new UnreachableError("the server does not answer");
  }
  compareClocks(response);
  if (!response.ok) throw readRefusal(response.status, bytes);
  try {
    return read(bytes);
  } catch (error) {
    if (error instanceof SyntaxError) throw new UnreachableError("the server answered with something that is not JSON");
    throw error;
  }
}

function readRefusal(status: number, bytes: Uint8Array): Error {
  try {
    const { error } = parseJson<{ error?: ApiErrorBody }>(bytes);
    if (typeof error?.message === "string") return new RefusedError(status, error);
  } catch {
    // A proxy on the way answers in its own words.
  }
  return new UnreachableError(`the server answered ${status}`);
}
