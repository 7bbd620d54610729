// The list of completions at the caret of the selector field.
import type { CompletionContext } from "../lib/completion.ts";
import type { RangeMs } from "../lib/time-range.ts";
import { listCandidates } from "./labels.ts";
import { createLatestRequest } from "./latest-request.ts";
import { createStore, type Store } from "./store.ts";

/** A non-empty list of candidates for one position in the text. */
export interface CompletionList {
  context: CompletionContext;
  candidates: string[];
}

export interface Completion extends Store<{ completions: CompletionList | null }> {
  /** Requests a list; the last one stays until the new one arrives. Null closes the list. */
  ask(context: CompletionContext | null, range: RangeMs): void;
}

export function createCompletion(): Completion {
  const store = createStore<{ completions: CompletionList | null }>({ completions: null });
  const latest = createLatestRequest();
  const close = (): void => {
    latest.cancel();
    store.set({ completions: null });
  };
  return {
    ...store,
    ask(context, range) {
      if (!context) return close();
      latest.replace(() => listCandidates(context, range), {
        onAnswer: (candidates) => store.set({ completions: candidates.length > 0 ? { context, candidates } : null }),
        // Typing works without completion, so show no error.
        onFailure: close,
      });
    },
  };
}
