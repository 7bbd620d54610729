// The selector's field: an ARIA combobox with real labels and values, and the
// server's complaint shown where in the text it belongs.
import type { JSX } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import type { ApiErrorBody } from "../api/shapes.ts";
import { applyCandidate, findWanted, type Wanted } from "../lib/completion.ts";
import { formatSelector, parseSelector } from "../lib/selector.ts";

export interface SelectorInputProps {
  query: string;
  /** What the server found wrong with `query`. */
  refusal: ApiErrorBody | null;
  onCommit(query: string): void;
  listCandidates(wanted: Wanted): Promise<string[]>;
}

interface Offer {
  wanted: Wanted;
  candidates: string[];
}

/** Code points, as the server counts, to UTF-16 units, as the browser does. */
function toUnits(text: string, codePoints: number): number {
  return [...text].slice(0, codePoints).join("").length;
}

/** What is sent: the braces are put back where they were left out; the rest is for the server to judge. */
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

export function SelectorInput({ query, refusal, onCommit, listCandidates }: SelectorInputProps): JSX.Element {
  const id = useId();
  const input = useRef<HTMLInputElement>(null);
  const mirror = useRef<HTMLDivElement>(null);
  const [draft, setDraft] = useState(query);
  const [offer, setOffer] = useState<Offer | null>(null);
  const [active, setActive] = useState(-1);
  const asked = useRef(0);
  useEffect(() => setDraft(query), [query]);

  const close = (): void => {
    asked.current += 1;
    setOffer(null);
    setActive(-1);
  };

  const ask = (text: string, caret: number): void => {
    const wanted = findWanted(text, caret);
    asked.current += 1;
    const mine = asked.current;
    if (!wanted) return close();
    listCandidates(wanted).then(
      (candidates) => {
        if (mine !== asked.current) return;
        setOffer(candidates.length > 0 ? { wanted, candidates } : null);
        setActive(-1);
      },
      // Completion is a help; without it one can still type.
      () => mine === asked.current && close(),
    );
  };

  const accept = (candidate: string): void => {
    if (!offer || !input.current) return;
    const edit = applyCandidate(draft, offer.wanted, candidate);
    setDraft(edit.text);
    // The caret can be set only once the new text is in the field.
    input.current.value = edit.text;
    input.current.setSelectionRange(edit.caret, edit.caret);
    input.current.focus();
    close();
    if (offer.wanted.kind !== "value") ask(edit.text, edit.caret);
  };

  const commit = (): void => {
    close();
    const next = normalizeQuery(draft) || "{}";
    setDraft(next);
    onCommit(next);
  };

  const onKeyDown = (event: KeyboardEvent): void => {
    const count = offer?.candidates.length ?? 0;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (count === 0) return ask(draft, input.current?.selectionStart ?? draft.length);
      const step = event.key === "ArrowDown" ? 1 : -1;
      setActive(active < 0 && step < 0 ? count - 1 : (active + step + count) % count);
    } else if (event.key === "Enter") {
      event.preventDefault();
      if (offer && active >= 0) accept(offer.candidates[active]!);
      else commit();
    } else if (event.key === "Tab" && !event.shiftKey && offer && count > 0) {
      event.preventDefault();
      accept(offer.candidates[Math.max(0, active)]!);
    } else if (event.key === "Escape") {
      event.stopPropagation();
      if (offer) close();
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
          aria-expanded={offer !== null}
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
      {offer && <CandidateList id={listId} optionId={id} offer={offer} active={active} onAccept={accept} />}
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
  offer: Offer;
  active: number;
  onAccept(candidate: string): void;
}

function CandidateList({ id, optionId, offer, active, onAccept }: CandidateListProps): JSX.Element {
  const list = useRef<HTMLUListElement>(null);
  useEffect(() => list.current?.children[active]?.scrollIntoView({ block: "nearest" }), [active]);
  const what = offer.wanted.kind === "value" ? `values of ${offer.wanted.label}` : `${offer.wanted.kind}s`;
  return (
    <ul class="candidates" id={id} role="listbox" aria-label={what} ref={list}>
      {offer.candidates.map((candidate, at) => (
        <li
          key={candidate}
          id={`${optionId}-${at}`}
          role="option"
          aria-selected={at === active}
          class={at === active ? "candidate candidate-active" : "candidate"}
          // The field must keep the focus, or its list closes before the click is there.
          onPointerDown={(event) => event.preventDefault()}
          onClick={() => onAccept(candidate)}
        >
          <bdi>{candidate}</bdi>
        </li>
      ))}
    </ul>
  );
}
