// URLs of a selection in other formats, for links and commands.
import { linkTo, type Selection } from "../api/routes.ts";

export interface Links {
  pprof: string;
  svg: string;
  folded: string;
}

/** Absolute URLs, since a command in a terminal needs them. `base` is the page's URL up to its last slash. */
export function linksOf(selection: Selection, base: string): Links {
  return {
    pprof: base + linkTo("pprof", selection),
    svg: base + linkTo("flamegraph.svg", selection),
    folded: base + linkTo("folded", selection),
  };
}
