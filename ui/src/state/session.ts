// Ties the page's state to what is fetched: a change of the selection asks for
// everything, a change of less asks for less.
import type { PageState } from "../lib/url-state.ts";
import { isRelative } from "../lib/time-range.ts";
import { createFunctions, type Functions } from "./functions.ts";
import { createPage, type Browser, type Page } from "./page.ts";
import { createProfile, type Profile } from "./profile.ts";

/** An empty store is looked at again this often: the first profile should show by itself. */
const EMPTY_AGAIN_MS = 3_000;

export interface Session {
  page: Page;
  profile: Profile;
  functions: Functions;
  /** Asks for everything anew, as the refresh button does. */
  refresh(): void;
}

function sameSelection(a: PageState, b: PageState): boolean {
  return a.query === b.query && a.from === b.from && a.to === b.to;
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
      // A tab that nobody sees asks for nothing.
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
    const { selection, emptiness } = profile.get();
    if (selection === shown) return;
    shown = selection;
    askFunctions();
    clearTimeout(again);
    if (emptiness?.kind === "store") again = setTimeout(refresh, EMPTY_AGAIN_MS);
  });

  schedule(before);
  refresh();
  return { page, profile, functions, refresh };
}
