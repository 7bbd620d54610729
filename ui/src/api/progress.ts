// Follows a question that takes long: the page names the question in a header of its request, and
// asks the server how far it is.
import type { QuestionProgress } from "./shapes.ts";

/** A question that is answered sooner is not followed. */
const LONG_MS = 1_000;

/** Time from one look to the next. */
const LOOK_MS = 500;

export type ProgressListener = (progress: QuestionProgress | null) => void;

export interface FollowedQuestion {
  headers: Record<string, string>;
  /** Call when the question is answered. The listener gets null, if it got anything before. */
  stop(): void;
}

/** Random, so that nobody else asks about the question: `crypto.randomUUID` needs HTTPS. */
function createName(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Tells the listener about a question, from a second after now on. */
export function followQuestion(onProgress: ProgressListener): FollowedQuestion {
  const name = createName();
  const stopped = new AbortController();
  const { signal } = stopped;
  let timer = setTimeout(() => void look(), LONG_MS);
  let isShown = false;

  async function look(): Promise<void> {
    const progress = await fetchProgress(name, signal);
    if (signal.aborted) return;
    if (progress) {
      isShown = true;
      onProgress(progress);
    }
    timer = setTimeout(() => void look(), LOOK_MS);
  }

  return {
    headers: { "pilotlight-question": name },
    stop() {
      stopped.abort();
      clearTimeout(timer);
      if (isShown) onProgress(null);
    },
  };
}

/** Null if it is not known: the question's own answer tells of a failure. */
async function fetchProgress(name: string, signal: AbortSignal): Promise<QuestionProgress | null> {
  try {
    const response = await fetch(`api/v1/progress?question=${name}`, { signal, headers: { accept: "application/json" } });
    const progress = (await response.json()) as QuestionProgress;
    return response.ok && progress.state !== "unknown" ? progress : null;
  } catch {
    return null;
  }
}
