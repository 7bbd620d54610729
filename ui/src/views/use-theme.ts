// The current theme: the user's choice, or the system's.
import { useLayoutEffect, useState } from "preact/hooks";
import type { Theme } from "../lib/colour.ts";
import type { ThemeChoice } from "../lib/url-state.ts";

const DARK = "(prefers-color-scheme: dark)";

export function useTheme(choice: ThemeChoice): Theme {
  const [system, setSystem] = useState<Theme>(() => (window.matchMedia(DARK).matches ? "dark" : "light"));
  useLayoutEffect(() => {
    const query = window.matchMedia(DARK);
    const update = (): void => setSystem(query.matches ? "dark" : "light");
    query.addEventListener("change", update);
    return () => query.removeEventListener("change", update);
  }, []);
  const theme = choice === "auto" ? system : choice;
  // Set during rendering, not in an effect: the canvas reads its colours from the document.
  if (document.documentElement.dataset["theme"] !== theme) document.documentElement.dataset["theme"] = theme;
  return theme;
}
