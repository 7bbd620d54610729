// The table of functions, page by page as it is scrolled: the server sorts and
// filters, so that the table is exact however many functions there are.
import { fetchTop, type Selection } from "../api/routes.ts";
import type { TopFunction } from "../api/shapes.ts";
import { pagesOf, type RowWindow } from "../lib/row-window.ts";
import type { SortKey } from "../lib/url-state.ts";
import { createStore, type Store } from "./store.ts";

export const PAGE_ROWS = 200;

/** Pages kept: 10,000 rows, some 2 MB. Beyond that the oldest are asked for again. */
const PAGES_MAX = 50;

export interface FunctionsState {
  totalNs: number;
  count: number;
  /** The pages that are here, by number. */
  pages: ReadonlyMap<number, readonly TopFunction[]>;
  /** Set when the last request failed; the rows stay. */
  failed: string | null;
}

export interface FunctionsQuery {
  selection: Selection;
  sort: SortKey;
  filter: string;
}

export interface Functions extends Store<FunctionsState> {
  /** Starts over with another question; the old rows stay until the first page is here. */
  ask(query: FunctionsQuery): void;
  /** Makes sure that these rows are here or on their way. */
  need(rows: RowWindow): void;
}

export function createFunctions(): Functions {
  const store = createStore<FunctionsState>({ totalNs: 0, count: 0, pages: new Map(), failed: null });
  let query: FunctionsQuery | null = null;
  let controller = new AbortController();
  let pending = new Set<number>();
  let fresh = false;

  function fetchPage(page: number): void {
    if (!query || pending.has(page)) return;
    pending.add(page);
    const { signal } = controller;
    const { selection, sort, filter } = query;
    fetchTop(selection, { sort, search: filter, limit: PAGE_ROWS, offset: page * PAGE_ROWS }, signal)
      .then((answer) => {
        if (signal.aborted) return;
        const pages = new Map(fresh ? store.get().pages : []);
        fresh = true;
        pages.set(page, answer.functions);
        for (const old of [...pages.keys()].slice(0, Math.max(0, pages.size - PAGES_MAX))) pages.delete(old);
        pending.delete(page);
        store.set({ totalNs: answer.total_ns, count: answer.count, pages, failed: null });
      })
      .catch((error: unknown) => {
        if (signal.aborted) return;
        pending.delete(page);
        store.set({ failed: (error as Error).message });
      });
  }

  return {
    ...store,
    ask(next) {
      controller.abort();
      controller = new AbortController();
      pending = new Set();
      query = next;
      fresh = false;
      fetchPage(0);
    },
    need(rows) {
      if (!fresh) return;
      for (const page of pagesOf(rows, PAGE_ROWS)) if (!store.get().pages.has(page)) fetchPage(page);
    },
  };
}
