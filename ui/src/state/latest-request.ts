// Requests of which only the latest may change the state. All requests of state/ go through here,
// so that a slow answer never replaces a newer one.

export interface Handlers<T> {
  onAnswer(answer: T): void;
  onFailure(error: Error): void;
}

/** The requests that fill one part of the state. */
export interface LatestRequest {
  /** Aborts the earlier requests and their retry, then sends this one. */
  replace<T>(send: (signal: AbortSignal) => Promise<T>, handlers: Handlers<T>): void;
  /** Sends an additional request. The next `replace` aborts all. */
  join<T>(send: (signal: AbortSignal) => Promise<T>, handlers: Handlers<T>): void;
  /** Calls `again` after a delay, unless `replace` or `cancel` comes first. */
  retry(waitMs: number, again: () => void): void;
  /** Aborts the requests and their retry. */
  cancel(): void;
}

export function createLatestRequest(): LatestRequest {
  let controller = new AbortController();
  let timer: ReturnType<typeof setTimeout> | undefined;

  const latest: LatestRequest = {
    replace(send, handlers) {
      latest.cancel();
      latest.join(send, handlers);
    },
    join(send, { onAnswer, onFailure }) {
      const { signal } = controller;
      // Check the signal: `fetch` may still answer after an abort, and cached answers ignore the
      // signal.
      send(signal).then(
        (answer) => {
          if (!signal.aborted) onAnswer(answer);
        },
        (error: unknown) => {
          if (!signal.aborted) onFailure(error as Error);
        },
      );
    },
    retry(waitMs, again) {
      clearTimeout(timer);
      timer = setTimeout(again, waitMs);
    },
    cancel() {
      controller.abort();
      controller = new AbortController();
      clearTimeout(timer);
    },
  };
  return latest;
}
