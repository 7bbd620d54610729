// The answer to one request of a panel, for as long as the panel is open.
import type { Asking } from "../api/request.ts";
import type { QuestionProgress } from "../api/shapes.ts";
import { createLatestRequest } from "./latest-request.ts";
import { createStore, type Store } from "./store.ts";

/** The last answer, the error of the last request if it failed, and how far a long one is. */
export interface AnswerState<T> {
  readonly answer: T | null;
  readonly failed: string | null;
  readonly progress: QuestionProgress | null;
}

export interface Answer<Query, T> extends Store<AnswerState<T>> {
  /** Sends a request. The last answer stays until the new one arrives, or if the request fails. */
  ask(query: Query): void;
  cancel(): void;
}

export function createAnswer<Query, T>(send: (query: Query, asking: Asking) => Promise<T>): Answer<Query, T> {
  const store = createStore<AnswerState<T>>({ answer: null, failed: null, progress: null });
  const latest = createLatestRequest();
  return {
    ...store,
    ask(query) {
      store.set({ progress: null });
      latest.replace((signal) => send(query, { signal, onProgress: (progress) => store.set({ progress }) }), {
        onAnswer: (answer) => store.set({ answer, failed: null }),
        onFailure: (error) => store.set({ failed: error.message }),
      });
    },
    cancel: latest.cancel,
  };
}
