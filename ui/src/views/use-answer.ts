// A hook for requests of the state.
import { useEffect, useState } from "preact/hooks";
import type { Answer, AnswerState } from "../state/answer.ts";
import { useStore } from "./use-store.ts";

/**
 * Sends the query when one of `inputs` changes, unless it is null. The last answer stays until
 * the next one arrives.
 */
export function useAnswer<Query, T>(create: () => Answer<Query, T>, query: Query | null, inputs: readonly unknown[] = [query]): AnswerState<T> {
  const [answer] = useState(create);
  useEffect(() => {
    if (query !== null) answer.ask(query);
  }, inputs);
  useEffect(() => answer.cancel, [answer]);
  return useStore(answer);
}
