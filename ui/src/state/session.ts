// Connects the page's state with the requests: a new selection fetches everything, other changes
// fetch only the affected part.
import { readServerClock } from "../api/request.ts";
import type { PageState } from "../lib/url-state.ts";
import { isRelative, resolveRange, type RangeMs } from "../lib/time-range.ts";
import { createCompletion, type Completion } from "./completion.ts";
import { createFunctions, type Functions } from "./functions.ts";
import { createPage, type Browser, type Page } from "./page.ts";
import { createProfile, type Profile } from "./profile.ts";

/**
 * Interval at which an empty store is checked again, so that the first profile appears without a
 * reload.
 */
const EMPTY_AGAIN_MS = 3_000;

export interface Session {
  page: Page;
  profile: Profile;
  functions: Functions;
  completion: Completion;
  /** The range of the shown profile, or of the request before the first one. */
  range(): RangeMs;
  /** The time of the server's clock. */
  readClock(): number;
  /** Fetches everything again. */
  refresh(): void;
}

function sameSelection(a: PageState, b: PageState): boolean {
  return a.query === b.query && a.from === b.from && a.to === b.to;
}

/** The requested range; the last 15 minutes if it is invalid. */
function askedRange(page: PageState): RangeMs {
  const nowMs = readServerClock();
  try {
    return resolveRange(page, nowMs, page.zone);
  } catch {
    return { fromMs: nowMs - 900_000, toMs: nowMs };
  }
}

export function createSession(browser: Browser): Session {
  const page = createPage(browser);
  const profile = createProfile();
  const functions = createFunctions();
  let timer: ReturnType<typeof setInterval> | undefined;
  let again: ReturnType<typeof setTimeout> | undefined;

  const refresh = (): void => profile.load(page.get());

  function schedule({ refresh: seconds, from, to }: PageState): void {
    clearInterval(timer);
    if (seconds === 0 || !(isRelative(from) || isRelative(to))) return;
    timer = setInterval(() => {
      // Send no requests from a hidden tab.
      if (!globalThis.document?.hidden && !profile.get().loading) refresh();
    }, seconds * 1000);
  }

  let before = page.get();
  page.subscribe(() => {
    const now = page.get();
    if (!sameSelection(now, before)) profile.load(now);
    else if (now.by !== before.by) profile.loadSeries(now);
    if (now.zoom !== before.zoom) profile.loadBranches(now.zoom);
    if (now.sort !== before.sort || now.filter !== before.filter) askFunctions();
    if (now.refresh !== before.refresh || !sameSelection(now, before)) schedule(now);
    before = now;
  });

  function askFunctions(): void {
    const { selection } = profile.get();
    const { sort, filter } = page.get();
    if (selection) functions.ask({ selection, sort, filter });
  }
  let shown = profile.get().selection;
  profile.subscribe(() => {
    const { selection, emptyReason } = profile.get();
    if (selection === shown) return;
    shown = selection;
    askFunctions();
    clearTimeout(again);
    if (emptyReason?.kind === "store") again = setTimeout(refresh, EMPTY_AGAIN_MS);
  });

  schedule(before);
  refresh();
  return {
    page,
    profile,
    functions,
    completion: createCompletion(),
    range: () => profile.get().selection?.range ?? askedRange(page.get()),
    readClock: readServerClock,
    refresh,
  };
}
