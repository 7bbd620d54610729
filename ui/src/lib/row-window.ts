// Computes the visible rows of a long table, and the pages of rows to request.

export interface RowWindow {
  first: number;
  /** One past the last. */
  end: number;
}

/** Additional rows above and below the visible ones, so that fast scrolling shows no gap. */
const MARGIN_ROWS = 8;

export interface Scroll {
  top: number;
  height: number;
  rowHeight: number;
  rowCount: number;
}

export function visibleRows({ top, height, rowHeight, rowCount }: Scroll): RowWindow {
  const first = Math.max(0, Math.floor(top / rowHeight) - MARGIN_ROWS);
  const end = Math.min(rowCount, Math.ceil((top + height) / rowHeight) + MARGIN_ROWS);
  return { first: Math.min(first, end), end };
}

/** The numbers of the pages that contain these rows. */
export function pagesOf({ first, end }: RowWindow, pageRows: number): number[] {
  if (end <= first) return [];
  const pages: number[] = [];
  for (let page = Math.floor(first / pageRows); page * pageRows < end; page += 1) pages.push(page);
  return pages;
}
