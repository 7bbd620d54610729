// The answer to one request of a panel, for as long as the panel is open.
import { createLatestRequest } from "./latest-request.ts";
import { createStore, type Store } from "./store.ts";

/** The last answer, and the error of the last request, if it failed. */
export interface AnswerState<T> {
  readonly answer: T | null;
  readonly failed: string | null;
}

export interface Answer<Query, T> extends Store<AnswerState<T>> {
  /** Sends a request. The last answer stays until the new one arrives, or if the request fails. */
  ask(query: Query): void;
  cancel(): void;
}

export function createAnswer<Query, T>(send: (query: Query, signal: AbortSignal) => Promise<T>): Answer<Query, T> {
  const store = createStore<AnswerState<T>>({ answer: null, failed: null });
  const latest = createLatestRequest();
  return {
    ...store,
    ask(query) {
      latest.replace((signal) => send(query, signal), {
        onAnswer: (answer) => store.set({ answer, failed: null }),
        onFailure: (error) => store.set({ failed: error.message }),
      });
    },
    cancel: latest.cancel,
  };
}
