// How far the server is with a question that takes long.
import type { JSX } from "preact";
import type { QuestionProgress } from "../api/shapes.ts";
import { describeProgress } from "./progress-text.ts";

/** Floats above the page, so that nothing moves when it comes and goes. */
export function FloatingProgress({ progress }: { progress: QuestionProgress }): JSX.Element {
  const { text, share } = describeProgress(progress);
  return (
    <div class="question-progress" role="status">
      <span>{text}</span>
      {share === null ? <progress aria-label="Progress" /> : <progress aria-label="Progress" value={share} />}
    </div>
  );
}

/** The place of an answer that is not there yet. */
export function Loading({ progress }: { progress: QuestionProgress | null }): JSX.Element {
  return <p class="muted" role="status">{progress ? `${describeProgress(progress).text} …` : "Loading …"}</p>;
}
