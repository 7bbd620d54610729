// Above the flame graph: the search with its share, and where one is zoomed to.
import { Fragment, type JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { formatCount, formatDuration, formatPercent } from "../lib/format.ts";
import { stepName, type FlamePath } from "../lib/flame-path.ts";
import type { FlameTree } from "../lib/flame-tree.ts";
import type { Matches } from "../lib/search.ts";
import { collapseBrackets, cutName } from "../lib/text.ts";
import { Icon } from "./icons.tsx";

export interface SearchFieldProps {
  search: string;
  /** Why the search cannot be read. */
  error: string | undefined;
  matches: Matches | null;
  tree: FlameTree;
  onSearch(search: string): void;
  /** To the next match, or the one before. */
  onStep(direction: 1 | -1): void;
}

/** Waits this long after the last key before the tree is searched: a million nodes take some 30 ms. */
const TYPING_MS = 120;

export function SearchField({ search, error, matches, tree, onSearch, onStep }: SearchFieldProps): JSX.Element {
  const [draft, setDraft] = useState(search);
  const timer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  useEffect(() => setDraft(search), [search]);
  const change = (text: string): void => {
    setDraft(text);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => onSearch(text), TYPING_MS);
  };
  const onKeyDown = (event: KeyboardEvent): void => {
    if (event.key === "Enter") {
      clearTimeout(timer.current);
      if (draft !== search) onSearch(draft);
      else onStep(event.shiftKey ? -1 : 1);
      event.preventDefault();
    } else if (event.key === "Escape" && draft !== "") {
      clearTimeout(timer.current);
      setDraft("");
      onSearch("");
      event.stopPropagation();
    }
  };
  return (
    <div class="search">
      <label class={`search-field ${error ? "search-wrong" : ""}`}>
        <Icon name="search" />
        <input
          id="flame-search"
          type="search"
          placeholder="Search: text or /regex/"
          title="A part of a function's or binary's name, /a regular expression/, or =the whole name. Press / to come here."
          aria-label="Search the flame graph"
          aria-invalid={error !== undefined}
          value={draft}
          spellcheck={false}
          onInput={(event) => change(event.currentTarget.value)}
          onKeyDown={onKeyDown}
        />
      </label>
      <span class="search-result" role="status">
        {error !== undefined ? <span class="warn">{error}</span> : matches && <SearchResult matches={matches} tree={tree} />}
      </span>
      {matches && matches.nodes.length > 0 && (
        <span class="search-steps">
          <button type="button" class="tool" title="Previous match (Shift+Enter)" aria-label="Previous match" onClick={() => onStep(-1)}><Icon name="left" /></button>
          <button type="button" class="tool" title="Next match (Enter)" aria-label="Next match" onClick={() => onStep(1)}><Icon name="right" /></button>
        </span>
      )}
    </div>
  );
}

function SearchResult({ matches, tree }: { matches: Matches; tree: FlameTree }): JSX.Element {
  const whole = tree.total[0]!;
  if (matches.nodes.length === 0) {
    return <>No match{matches.unknownNs > 0 && ` in what is drawn; ${formatPercent(matches.unknownNs / whole)} is left out`}</>;
  }
  const title = `${formatDuration(matches.totalNs)}, ${formatCount(matches.samples)} samples; each stack counts once, however often it matches`;
  return (
    <span title={title}>
      {matches.unknownNs > 0 && "at least "}
      <strong>{formatPercent(matches.totalNs / whole)}</strong> of everything
      <span class="muted"> · {formatCount(matches.nodes.length)} {matches.nodes.length === 1 ? "box" : "boxes"}</span>
    </span>
  );
}

export interface BreadcrumbsProps {
  zoom: FlamePath;
  /** How many of its steps are in this picture. */
  found: number;
  onZoom(path: FlamePath): void;
}

/** Steps shown at the front and at the end of a long path. */
const FIRST_STEPS = 1;
const LAST_STEPS = 4;

export function Breadcrumbs({ zoom, found, onZoom }: BreadcrumbsProps): JSX.Element | null {
  if (zoom.length === 0) return null;
  const hidden = Math.max(0, zoom.length - FIRST_STEPS - LAST_STEPS);
  const shown = zoom.map((step, at) => ({ step, at })).filter(({ at }) => at < FIRST_STEPS || at >= FIRST_STEPS + hidden);
  return (
    <nav class="crumbs" aria-label="Zoomed to">
      <button type="button" onClick={() => onZoom([])}>all</button>
      {shown.map(({ step, at }) => (
        <Fragment key={at}>
          <span class="crumb-arrow" aria-hidden="true">›</span>
          {hidden > 0 && at === FIRST_STEPS + hidden && <span class="muted" title={zoom.slice(FIRST_STEPS, FIRST_STEPS + hidden).map((name) => cutName(stepName(name)).text).join("\n")}>{hidden} more ›</span>}
          <button
            type="button"
            class={at >= found ? "crumb-missing" : ""}
            title={at >= found ? "Not in this picture" : cutName(stepName(step)).text}
            aria-current={at === zoom.length - 1 ? "location" : undefined}
            onClick={() => onZoom(zoom.slice(0, at + 1))}
          >
            <bdi>{cutName(collapseBrackets(cutName(stepName(step)).text)).text || "(no name)"}</bdi>
          </button>
        </Fragment>
      ))}
      <button type="button" class="crumb-reset" title="Show everything (Escape)" aria-label="Show everything" onClick={() => onZoom([])}><Icon name="close" /></button>
    </nav>
  );
}
