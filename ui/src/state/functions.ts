// The rows of the function table, fetched page by page while the user scrolls. The server sorts and
// filters, so the table is exact for any number of functions.
import { fetchTop, type Selection } from "../api/routes.ts";
import type { TopFunction } from "../api/shapes.ts";
import { pagesOf, type RowWindow } from "../lib/row-window.ts";
import type { SortKey } from "../lib/url-state.ts";
import { createLatestRequest } from "./latest-request.ts";
import { createStore, type Store } from "./store.ts";

export const PAGE_ROWS = 200;

/**
 * Pages in memory: 10,000 rows, about 2 MB. The oldest are evicted, and fetched again when needed.
 */
const PAGES_MAX = 50;

export interface FunctionsState {
  totalNs: number;
  count: number;
  /** The fetched pages, by number. */
  pages: ReadonlyMap<number, readonly TopFunction[]>;
  /** The message of the last request's error; the rows stay. */
  failed: string | null;
}

export interface FunctionsQuery {
  selection: Selection;
  sort: SortKey;
  filter: string;
}

export interface Functions extends Store<FunctionsState> {
  /** Starts a new query. The old rows stay until the first page arrives. */
  ask(query: FunctionsQuery): void;
  /** Fetches the pages of these rows, unless they are present or already requested. */
  need(rows: RowWindow): void;
}

export function createFunctions(): Functions {
  const store = createStore<FunctionsState>({ totalNs: 0, count: 0, pages: new Map(), failed: null });
  let query: FunctionsQuery | null = null;
  const latest = createLatestRequest();
  /** Requested pages. */
  let pending = new Set<number>();
  /** Whether the pages in the store belong to `query`. */
  let fresh = false;

  function fetchPage(page: number, send: typeof latest.join): void {
    if (!query || pending.has(page)) return;
    pending.add(page);
    const { selection, sort, filter } = query;
    send((signal) => fetchTop(selection, { sort, search: filter, limit: PAGE_ROWS, offset: page * PAGE_ROWS }, { signal }), {
      onAnswer(answer) {
        const pages = new Map(fresh ? store.get().pages : []);
        fresh = true;
        pages.set(page, answer.functions);
        for (const old of [...pages.keys()].slice(0, Math.max(0, pages.size - PAGES_MAX))) pages.delete(old);
        pending.delete(page);
        store.set({ totalNs: answer.total_ns, count: answer.count, pages, failed: null });
      },
      onFailure(error) {
        pending.delete(page);
        store.set({ failed: error.message });
      },
    });
  }

  return {
    ...store,
    ask(next) {
      pending = new Set();
      query = next;
      fresh = false;
      fetchPage(0, latest.replace);
    },
    need(rows) {
      if (!fresh) return;
      for (const page of pagesOf(rows, PAGE_ROWS)) if (!store.get().pages.has(page)) fetchPage(page, latest.join);
    },
  };
}
