// The selector field: an ARIA combobox that completes labels and values, and marks the position of
// the server's error.
import type { JSX } from "preact";
import { useEffect, useId, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { ApiErrorBody } from "../api/shapes.ts";
import { applyCandidate, findCompletionContext, type CompletionContext } from "../lib/completion.ts";
import { formatSelector, parseSelector } from "../lib/selector.ts";
import type { CompletionList } from "../state/completion.ts";

export interface SelectorInputProps {
  query: string;
  /** The server's error about `query`. */
  refusal: ApiErrorBody | null;
  completions: CompletionList | null;
  onCommit(query: string): void;
  /** Requests completions; null closes the list. */
  onComplete(context: CompletionContext | null): void;
}

/** Converts a position in code points (the server's) to UTF-16 code units (the browser's). */
function toUnits(text: string, codePoints: number): number {
  return [...text].slice(0, codePoints).join("").length;
}

/** Adds missing braces. All other checks are the server's. */
function normalizeQuery(draft: string): string {
  const trimmed = draft.trim();
  if (trimmed.startsWith("{")) return trimmed;
  const { matchers } = parseSelector(trimmed);
  return matchers ? formatSelector(matchers) : trimmed;
}

function Underlined({ text, refusal }: { text: string; refusal: ApiErrorBody }): JSX.Element {
  const from = Math.min(text.length, toUnits(text, refusal.position ?? 0));
  const length = Math.max(1, refusal.near?.length ?? 1);
  const marked = text.slice(from, from + length);
  return (
    <div class="selector-mirror" aria-hidden="true">
      {text.slice(0, from)}
      <span class="selector-wrong">{marked === "" ? "\u00a0\u00a0" : marked}</span>
    </div>
  );
}

export function SelectorInput({ query, refusal, completions, onCommit, onComplete }: SelectorInputProps): JSX.Element {
  const id = useId();
  const input = useRef<HTMLInputElement>(null);
  const mirror = useRef<HTMLDivElement>(null);
  const [draft, setDraft] = useState(query);
  const [active, setActive] = useState(-1);
  useEffect(() => setDraft(query), [query]);
  // In a layout effect, so that no key selects from the new list by the old index.
  useLayoutEffect(() => setActive(-1), [completions]);

  const close = (): void => onComplete(null);
  const ask = (text: string, caret: number): void => onComplete(findCompletionContext(text, caret));

  const accept = (candidate: string): void => {
    if (!completions || !input.current) return;
    const edit = applyCandidate(draft, completions.context, candidate);
    setDraft(edit.text);
    // The caret can only be set when the field contains the new text.
    input.current.value = edit.text;
    input.current.setSelectionRange(edit.caret, edit.caret);
    input.current.focus();
    close();
    if (completions.context.kind !== "value") ask(edit.text, edit.caret);
  };

  const commit = (): void => {
    close();
    const next = normalizeQuery(draft) || "{}";
    setDraft(next);
    onCommit(next);
  };

  const onKeyDown = (event: KeyboardEvent): void => {
    const count = completions?.candidates.length ?? 0;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (count === 0) return ask(draft, input.current?.selectionStart ?? draft.length);
      const step = event.key === "ArrowDown" ? 1 : -1;
      setActive(active < 0 && step < 0 ? count - 1 : (active + step + count) % count);
    } else if (event.key === "Enter") {
      event.preventDefault();
      if (completions && active >= 0) accept(completions.candidates[active]!);
      else commit();
    } else if (event.key === "Tab" && !event.shiftKey && completions && count > 0) {
      event.preventDefault();
      accept(completions.candidates[Math.max(0, active)]!);
    } else if (event.key === "Escape") {
      event.stopPropagation();
      if (completions) close();
      else setDraft(query);
    }
  };

  const complaint = refusal && draft === query ? refusal : null;
  const listId = `${id}-list`;
  const errorId = `${id}-error`;
  return (
    <div class="selector">
      <div class={`selector-field ${complaint ? "selector-field-wrong" : ""}`}>
        <div class="selector-under" ref={mirror}>
          {complaint?.position !== undefined && <Underlined text={draft} refusal={complaint} />}
        </div>
        <input
          ref={input}
          type="text"
          role="combobox"
          aria-label="Selector of series"
          aria-autocomplete="list"
          aria-expanded={completions !== null}
          aria-controls={listId}
          aria-activedescendant={active >= 0 ? `${id}-${active}` : undefined}
          aria-invalid={complaint !== null}
          aria-describedby={complaint ? errorId : undefined}
          autocomplete="off"
          autocapitalize="off"
          spellcheck={false}
          placeholder={'{comm="postgres"}'}
          value={draft}
          onInput={(event) => {
            setDraft(event.currentTarget.value);
            ask(event.currentTarget.value, event.currentTarget.selectionStart ?? 0);
          }}
          onClick={(event) => ask(event.currentTarget.value, event.currentTarget.selectionStart ?? 0)}
          onScroll={(event) => mirror.current && (mirror.current.scrollLeft = event.currentTarget.scrollLeft)}
          onKeyDown={onKeyDown}
          onBlur={close}
        />
        {draft !== query && (
          <button type="button" class="selector-run" onPointerDown={(event) => event.preventDefault()} onClick={commit}>
            Apply <kbd>Enter</kbd>
          </button>
        )}
      </div>
      {completions && <CandidateList id={listId} optionId={id} completions={completions} active={active} onAccept={accept} />}
      {complaint && (
        <p class="selector-error" id={errorId} role="alert">
          <strong>{complaint.message}</strong>
          {complaint.position !== undefined && <span> at character {complaint.position + 1}</span>}
          {complaint.hint && <span class="selector-hint">{complaint.hint}</span>}
        </p>
      )}
    </div>
  );
}

interface CandidateListProps {
  id: string;
  optionId: string;
  completions: CompletionList;
  active: number;
  onAccept(candidate: string): void;
}

function CandidateList({ id, optionId, completions, active, onAccept }: CandidateListProps): JSX.Element {
  const list = useRef<HTMLUListElement>(null);
  useEffect(() => list.current?.children[active]?.scrollIntoView({ block: "nearest" }), [active]);
  const what = completions.context.kind === "value" ? `values of ${completions.context.label}` : `${completions.context.kind}s`;
  return (
    <ul class="candidates" id={id} role="listbox" aria-label={what} ref={list}>
      {completions.candidates.map((candidate, at) => (
        <li
          key={candidate}
          id={`${optionId}-${at}`}
          role="option"
          aria-selected={at === active}
          class={at === active ? "candidate candidate-active" : "candidate"}
          // Keep the focus in the field: losing it closes the list before the click.
          onPointerDown={(event) => event.preventDefault()}
          onClick={() => onAccept(candidate)}
        >
          <bdi>{candidate}</bdi>
        </li>
      ))}
    </ul>
  );
}
