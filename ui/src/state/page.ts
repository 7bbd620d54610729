// The page's state and its URL. Each change is a step in the browser's history; further typing in a
// field replaces the step.
import { DEFAULT_STATE, readAddress, writeAddress, type PageState } from "../lib/url-state.ts";
import { createStore, type Store } from "./store.ts";

/** Preferences stored across visits; the selection is not among them. */
const REMEMBERED = ["theme", "zone", "chart", "panels"] as const;
const STORAGE_KEY = "pilotlight.preferences";

/** The browser's objects that the page needs; tests substitute them. */
export interface Browser {
  location: { search: string; pathname: string };
  history: Pick<History, "pushState" | "replaceState">;
  storage: Pick<Storage, "getItem" | "setItem"> | null;
  onBack(listener: () => void): void;
}

export type HistoryStep = "push" | "replace";

export interface Page extends Store<PageState> {
  /** Changes the state and the URL. */
  go(patch: Partial<PageState>, step?: HistoryStep): void;
}

function readPreferences(storage: Browser["storage"]): Partial<PageState> {
  try {
    const stored: unknown = JSON.parse(storage?.getItem(STORAGE_KEY) ?? "{}");
    const fields = new URLSearchParams();
    for (const key of REMEMBERED) {
      const value = (stored as Record<string, unknown>)[key];
      if (typeof value === "string") fields.set(key === "zone" ? "tz" : key, value);
    }
    // Parse stored values like a URL, so that values which no longer exist are ignored.
    return readAddress(fields.toString());
  } catch {
    return {};
  }
}

function writePreferences(storage: Browser["storage"], state: PageState): void {
  try {
    storage?.setItem(STORAGE_KEY, JSON.stringify(Object.fromEntries(REMEMBERED.map((key) => [key, state[key]]))));
  } catch {
    // Private windows refuse storage; the URL still holds the whole state.
  }
}

export function createPage(browser: Browser): Page {
  const preferred = { ...DEFAULT_STATE, ...readPreferences(browser.storage) };
  const store = createStore(readAddress(browser.location.search, preferred));
  browser.onBack(() => store.set(readAddress(browser.location.search, preferred)));
  return {
    ...store,
    go(patch, step = "push") {
      const before = writeAddress(store.get());
      store.set(patch);
      const after = writeAddress(store.get());
      writePreferences(browser.storage, store.get());
      if (after === before) return;
      // Relative to the defaults, not to the preferences: a shared URL must show the same to a user
      // with other preferences.
      const url = browser.location.pathname + after;
      if (step === "push") browser.history.pushState(null, "", url);
      else browser.history.replaceState(null, "", url);
    },
  };
}
