// The page's own state and its life in the address bar: each change a person
// makes is a step that "back" undoes; typing replaces the step it began.
import { DEFAULT_STATE, readAddress, writeAddress, type PageState } from "../lib/url-state.ts";
import { createStore, type Store } from "./store.ts";

/** What is remembered from visit to visit: taste, not what is looked at. */
const REMEMBERED = ["theme", "zone", "chart", "panels"] as const;
const STORAGE_KEY = "pilotlight.preferences";

/** The parts of the browser that this needs, so that tests can stand in for it. */
export interface Browser {
  location: { search: string; pathname: string };
  history: Pick<History, "pushState" | "replaceState">;
  storage: Pick<Storage, "getItem" | "setItem"> | null;
  onBack(listener: () => void): void;
}

export type Step = "push" | "replace";

export interface Page extends Store<PageState> {
  /** Changes the state and the address together. */
  go(patch: Partial<PageState>, step?: Step): void;
}

function readPreferences(storage: Browser["storage"]): Partial<PageState> {
  try {
    const stored: unknown = JSON.parse(storage?.getItem(STORAGE_KEY) ?? "{}");
    const fields = new URLSearchParams();
    for (const key of REMEMBERED) {
      const value = (stored as Record<string, unknown>)[key];
      if (typeof value === "string") fields.set(key === "zone" ? "tz" : key, value);
    }
    // Read as an address is, so that a stored value that no longer exists does no harm.
    return readAddress(fields.toString());
  } catch {
    return {};
  }
}

function writePreferences(storage: Browser["storage"], state: PageState): void {
  try {
    storage?.setItem(STORAGE_KEY, JSON.stringify(Object.fromEntries(REMEMBERED.map((key) => [key, state[key]]))));
  } catch {
    // Private windows refuse storage; the address still has everything.
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
      // The plain defaults are the base here, never the preferences: a pasted
      // address must show the same to someone with other tastes.
      const url = browser.location.pathname + after;
      if (step === "push") browser.history.pushState(null, "", url);
      else browser.history.replaceState(null, "", url);
    },
  };
}
