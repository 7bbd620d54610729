// Questions to the server as hooks.
import { useEffect, useState } from "preact/hooks";

/** The last answer, and why there is no newer one. */
export interface Asked<T> {
  readonly answer: T | null;
  readonly failed: string | null;
}

/** Asks when one of `inputs` changes; the last answer stays until the next is there, or when there is none. */
export function useAnswer<T>(ask: (signal: AbortSignal) => Promise<T>, inputs: readonly unknown[]): Asked<T> {
  const [asked, setAsked] = useState<Asked<T>>({ answer: null, failed: null });
  useEffect(() => {
    const controller = new AbortController();
    ask(controller.signal).then(
      (answer) => setAsked({ answer, failed: null }),
      (error: unknown) => {
        if (!controller.signal.aborted) setAsked(({ answer }) => ({ answer, failed: (error as Error).message }));
      },
    );
    return () => controller.abort();
  }, inputs);
  return asked;
}
