// The toolbar of the flame graph: search with its share of CPU time, and breadcrumbs.
import { Fragment, type JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { formatCount, formatDuration, formatPercent } from "../lib/format.ts";
import type { RecursionChain } from "../lib/flame-fold.ts";
import { groupSteps, stepName, type FlamePath } from "../lib/flame-path.ts";
import type { FlameTree } from "../lib/flame-tree.ts";
import type { Matches } from "../lib/search.ts";
import { collapseBrackets, cutName } from "../lib/text.ts";
import { Icon } from "./icons.tsx";

export interface SearchFieldProps {
  search: string;
  /** The error of an invalid search. */
  error: string | undefined;
  matches: Matches | null;
  tree: FlameTree;
  onSearch(search: string): void;
  /** Goes to the next or previous match. */
  onStep(direction: 1 | -1): void;
}

/** Delay after the last key before the search runs: searching a million nodes takes about 30 ms. */
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
          title="A part of a function's or binary's name, /a regular expression/, or =the whole name. Press / to focus this field."
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

/** Recursion with at least this many levels shows the hint about folding. */
const DEEP_LEVELS = 17;

export interface FoldToggleProps {
  fold: boolean;
  /** The longest chain of direct recursion. */
  chain: RecursionChain | null;
  onFold(fold: boolean): void;
}

export function FoldToggle({ fold, chain, onFold }: FoldToggleProps): JSX.Element {
  const idle = chain === null && !fold;
  const title = idle ? "No function here calls itself directly" : "Draw a function that calls itself as one box, with the time of all levels";
  return (
    <span class="fold">
      <button type="button" class="toggle" aria-pressed={fold} disabled={idle} title={title} onClick={() => onFold(!fold)}>
        <Icon name="fold" />Fold recursion
      </button>
      {chain && !fold && chain.levels >= DEEP_LEVELS && (
        <span class="fold-hint muted" title={cutName(chain.name).text}>
          <bdi>{cutName(collapseBrackets(cutName(chain.name).text)).text}</bdi> ×{formatCount(chain.levels)}
        </span>
      )}
    </span>
  );
}

export interface BreadcrumbsProps {
  zoom: FlamePath;
  /** Merge the steps from a function to itself. */
  fold: boolean;
  /** Number of path steps that exist in the shown tree. */
  found: number;
  onZoom(path: FlamePath): void;
}

/** Steps shown at the start and at the end of a long path. */
const FIRST_STEPS = 1;
const LAST_STEPS = 4;

export function Breadcrumbs({ zoom, fold, found, onZoom }: BreadcrumbsProps): JSX.Element | null {
  if (zoom.length === 0) return null;
  const steps = fold ? groupSteps(zoom) : zoom.map((step, at) => ({ step, at, levels: 1 }));
  const hidden = Math.max(0, steps.length - FIRST_STEPS - LAST_STEPS);
  const shown = [...steps.slice(0, FIRST_STEPS), ...steps.slice(FIRST_STEPS + hidden)];
  return (
    <nav class="crumbs" aria-label="Zoomed to">
      <button type="button" onClick={() => onZoom([])}>all</button>
      {shown.map(({ step, at, levels }, place) => (
        <Fragment key={at}>
          <span class="crumb-arrow" aria-hidden="true">›</span>
          {hidden > 0 && place === FIRST_STEPS && <span class="muted" title={steps.slice(FIRST_STEPS, FIRST_STEPS + hidden).map((hiddenStep) => cutName(stepName(hiddenStep.step)).text).join("\n")}>{hidden} more ›</span>}
          <button
            type="button"
            class={at >= found ? "crumb-missing" : ""}
            title={at >= found ? "Not in this profile" : cutName(stepName(step)).text}
            aria-current={at === zoom.length - 1 ? "location" : undefined}
            onClick={() => onZoom(zoom.slice(0, at + 1))}
          >
            <bdi>{cutName(collapseBrackets(cutName(stepName(step)).text)).text || "(no name)"}</bdi>{levels > 1 && ` ×${levels}`}
          </button>
        </Fragment>
      ))}
      <button type="button" class="crumb-reset" title="Show everything (Escape)" aria-label="Show everything" onClick={() => onZoom([])}><Icon name="close" /></button>
    </nav>
  );
}
