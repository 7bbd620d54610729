// The function table. Only the visible rows are in the DOM; scrolling fetches further rows.
import type { JSX } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { TopFunction } from "../api/shapes.ts";
import { KIND, kindLabel } from "../lib/frame-kind.ts";
import { formatCount, formatDuration, formatNumberOf, formatPercent } from "../lib/format.ts";
import { visibleRows, type RowWindow } from "../lib/row-window.ts";
import { exactSearch } from "../lib/search.ts";
import { baseName, cutName, showUnsafe } from "../lib/text.ts";
import type { SortKey } from "../lib/url-state.ts";
import { PAGE_ROWS, type FunctionsState } from "../state/functions.ts";
import { describeReason, isBuildId } from "../lib/reasons.ts";
import { Icon } from "./icons.tsx";
import { readRem } from "./rem.ts";

export interface FunctionTableProps {
  functions: FunctionsState;
  sort: SortKey;
  filter: string;
  /** The flame graph's search; the table marks the row that it selects. */
  search: string;
  onSort(sort: SortKey): void;
  onFilter(filter: string): void;
  onPick(row: TopFunction): void;
  /** Opens the function's lines. */
  onLines(row: TopFunction): void;
  onNeed(rows: RowWindow): void;
}

/** The height of `.row`. */
const ROW_HEIGHT_REM = 2.6;
/** The height of `.row-head`. */
const HEAD_HEIGHT_REM = 2.8;

/** Delay after the last key before the request. */
const TYPING_MS = 200;

export function FunctionTable(props: FunctionTableProps): JSX.Element {
  const { functions, sort, filter, search, onSort, onPick, onNeed } = props;
  const scroller = useRef<HTMLDivElement>(null);
  const [rows, setRows] = useState<RowWindow>({ first: 0, end: 40 });
  const [active, setActive] = useState(0);
  const { count, pages, totalNs } = functions;

  const measure = (): void => {
    const element = scroller.current;
    if (!element) return;
    const next = visibleRows({ top: element.scrollTop, height: element.clientHeight, rowHeight: ROW_HEIGHT_REM * readRem(), rowCount: count });
    setRows((old) => (old.first === next.first && old.end === next.end ? old : next));
  };
  useLayoutEffect(measure, [count]);
  useEffect(() => {
    const observer = new ResizeObserver(measure);
    observer.observe(scroller.current!);
    return () => observer.disconnect();
  }, [count]);
  useEffect(() => onNeed(rows), [rows, pages]);
  useEffect(() => {
    scroller.current?.scrollTo({ top: 0 });
    setActive(0);
  }, [sort, filter]);

  const rowAt = (index: number): TopFunction | undefined => pages.get(Math.floor(index / PAGE_ROWS))?.[index % PAGE_ROWS];
  const moveTo = (index: number): void => {
    const next = Math.max(0, Math.min(count - 1, index));
    setActive(next);
    const element = scroller.current!;
    const height = ROW_HEIGHT_REM * readRem();
    // The sticky head row covers a part of the scroller.
    const room = element.clientHeight - HEAD_HEIGHT_REM * readRem();
    const top = next * height;
    if (top < element.scrollTop) element.scrollTop = top;
    else if (top + height > element.scrollTop + room) element.scrollTop = top + height - room;
  };
  const onKeyDown = (event: KeyboardEvent): void => {
    const page = Math.max(1, Math.floor((scroller.current?.clientHeight ?? 0) / (ROW_HEIGHT_REM * readRem())) - 1);
    const steps: Record<string, number> = { ArrowDown: active + 1, ArrowUp: active - 1, PageDown: active + page, PageUp: active - page, Home: 0, End: count - 1 };
    const row = rowAt(active);
    if (event.key in steps) moveTo(steps[event.key]!);
    else if (event.key === "Enter" && row) onPick(row);
    else if (event.key === "l" && row?.file) props.onLines(row);
    else return;
    event.preventDefault();
  };

  const indexes = Array.from({ length: Math.max(0, rows.end - rows.first) }, (_, at) => rows.first + at);
  return (
    <section class="panel functions" aria-label="Functions">
      <TableHead {...props} />
      <div
        class="rows"
        role="grid"
        aria-label="Functions by CPU time"
        aria-rowcount={count + 1}
        aria-activedescendant={rowAt(active) ? `function-${active}` : undefined}
        tabIndex={0}
        ref={scroller}
        onScroll={measure}
        onKeyDown={onKeyDown}
      >
        <div class="row row-head" role="row" aria-rowindex={1}>
          <SortHead label="Self" title="Time in the function itself" sortKey="self" sort={sort} onSort={onSort} />
          <SortHead label="Total" title="Time in the function and its callees" sortKey="total" sort={sort} onSort={onSort} />
          <span role="columnheader">Function</span>
          <span role="columnheader">Binary</span>
        </div>
        <div class="rows-space" role="presentation" style={{ height: `${(count * ROW_HEIGHT_REM).toFixed(1)}rem` }}>
          {indexes.map((index) => {
            const row = rowAt(index);
            return row ? (
              <FunctionRow
                key={index}
                row={row}
                index={index}
                totalNs={totalNs}
                active={index === active}
                marked={search === exactSearch(row.name, row.binary)}
                onPick={() => {
                  setActive(index);
                  onPick(row);
                }}
                onLines={() => props.onLines(row)}
              />
            ) : (
              <div key={index} class="row row-waiting" role="row" style={{ top: `${(index * ROW_HEIGHT_REM).toFixed(1)}rem` }} />
            );
          })}
        </div>
        {count === 0 && <p class="rows-none muted">{filter ? `No function or binary contains “${showUnsafe(filter)}”.` : "No functions."}</p>}
      </div>
    </section>
  );
}

function TableHead({ functions, filter, onFilter }: FunctionTableProps): JSX.Element {
  const [draft, setDraft] = useState(filter);
  const timer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  useEffect(() => setDraft(filter), [filter]);
  const change = (text: string): void => {
    setDraft(text);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => onFilter(text), TYPING_MS);
  };
  return (
    <header class="panel-head">
      <h2>Functions</h2>
      <span class="muted">{formatCount(functions.count)}</span>
      {functions.failed && <span class="warn" role="alert">not up to date: {functions.failed}</span>}
      <span class="spacer" />
      <label class="search-field">
        <Icon name="search" />
        <input type="search" placeholder="Filter functions" aria-label="Filter functions by name or binary" value={draft} onInput={(event) => change(event.currentTarget.value)} />
      </label>
    </header>
  );
}

interface SortHeadProps {
  label: string;
  title: string;
  sortKey: SortKey;
  sort: SortKey;
  onSort(sort: SortKey): void;
}

function SortHead({ label, title, sortKey, sort, onSort }: SortHeadProps): JSX.Element {
  const sorted = sort === sortKey;
  return (
    <span role="columnheader" aria-sort={sorted ? "descending" : "none"}>
      <button type="button" class={sorted ? "sort sort-on" : "sort"} title={title} onClick={() => onSort(sortKey)}>
        {label}
        {sorted && <Icon name="down" />}
      </button>
    </span>
  );
}

interface FunctionRowProps {
  row: TopFunction;
  index: number;
  totalNs: number;
  active: boolean;
  marked: boolean;
  onPick(): void;
  onLines(): void;
}

function FunctionRow({ row, index, totalNs, active, marked, onPick, onLines }: FunctionRowProps): JSX.Element {
  const name = cutName(row.name).text || "(no name)";
  const why = row.reason === undefined ? "" : `: ${describeReason(row.reason).label}${isBuildId(row.build_id ?? "") ? `, build id ${showUnsafe(row.build_id!)}` : ""}`;
  const kinds: Record<number, string> = { [KIND.kernel]: "row-kernel", [KIND.inlined]: "row-inlined", [KIND.unnamed]: "row-unnamed" };
  return (
    <div
      id={`function-${index}`}
      role="row"
      aria-rowindex={index + 2}
      aria-selected={marked}
      class={`row ${kinds[row.kind] ?? ""} ${active ? "row-active" : ""} ${marked ? "row-marked" : ""}`}
      style={{ top: `${(index * ROW_HEIGHT_REM).toFixed(1)}rem` }}
      onClick={onPick}
    >
      <Amount ns={row.self_ns} samples={row.self_samples} totalNs={totalNs} />
      <Amount ns={row.total_ns} samples={row.total_samples} totalNs={totalNs} />
      <span role="gridcell" class="row-name" title={`${name}\n${kindLabel(row.kind)}${why}${row.file ? ` · ${showUnsafe(row.file)}` : ""}`}><bdi>{name}</bdi></span>
      <span role="gridcell" class="row-binary muted" title={showUnsafe(row.binary)}><bdi>{showUnsafe(baseName(row.binary))}</bdi></span>
      {row.file !== "" && (
        <span role="gridcell" class="row-lines">
          <button
            type="button"
            class="link"
            tabIndex={-1}
            title="Time by line of the source (key l)"
            onClick={(event) => {
              event.stopPropagation();
              onLines();
            }}
          >
            lines
          </button>
        </span>
      )}
    </div>
  );
}

function Amount({ ns, samples, totalNs }: { ns: number; samples: number; totalNs: number }): JSX.Element {
  const share = totalNs > 0 ? ns / totalNs : 0;
  return (
    <span role="gridcell" class="amount" title={`${formatDuration(ns)}, ${formatNumberOf(samples, "sample")}`}>
      <span class="amount-bar" style={{ "--share": Math.min(1, share) }} />
      <span class="amount-share">{formatPercent(share)}</span>
      <span class="amount-time">{formatDuration(ns)}</span>
    </span>
  );
}
