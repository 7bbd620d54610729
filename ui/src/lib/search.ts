// Finding functions in a tree: the text of the search field -> which frames
// match -> what share of the whole they have, each stack counted once.
import { CUT_FRAME, type FlameTree, type FrameTable } from "./flame-tree.ts";

/** Decides on one function. */
export type Test = (name: string, binary: string) => boolean;

export type Compiled = { test: Test; error?: undefined } | { test: null; error?: string };

/**
 * Reads what was typed: a part of the name or binary in any case, `/a regular
 * expression/` (with `i` for any case), or `=the whole name @ the binary` as the
 * table's rows set it. Nothing typed matches nothing.
 */
export function compileSearch(text: string): Compiled {
  const typed = text.trim();
  if (typed === "" || typed === "/" || typed === "=") return { test: null };
  if (typed.startsWith("=")) return { test: compileExact(typed.slice(1)) };
  const regex = /^\/(.+?)(?:\/(i?))?$/s.exec(typed);
  // A path is not a regular expression: `/usr/bin` is looked for as it stands.
  if (regex && typed.length > 1 && (typed.endsWith("/") || typed.endsWith("/i"))) {
    try {
      const pattern = new RegExp(regex[1]!, regex[2] === "i" ? "iu" : "u");
      return { test: (name) => pattern.test(name) };
    } catch (error) {
      return { test: null, error: (error as Error).message.replace(/^Invalid regular expression: /, "") };
    }
  }
  const wanted = typed.toLowerCase();
  return { test: (name, binary) => name.toLowerCase().includes(wanted) || binary.toLowerCase().includes(wanted) };
}

function compileExact(wanted: string): Test {
  const at = wanted.lastIndexOf(" @ ");
  if (at < 0) return (name) => name === wanted;
  const [wantedName, wantedBinary] = [wanted.slice(0, at), wanted.slice(at + 3)];
  return (name, binary) => name === wantedName && binary === wantedBinary;
}

/** The search that finds exactly this function. */
export function exactSearch(name: string, binary: string): string {
  return binary === "" ? `=${name}` : `=${name} @ ${binary}`;
}

export interface Matches {
  /** 1 for each frame that matches. */
  frames: Uint8Array;
  /** Matching nodes, in preorder. */
  nodes: Int32Array;
  /** Nanoseconds of the stacks that have a match, each counted once. */
  totalNs: number;
  samples: number;
  /** Nanoseconds below no match that the server cut away, so that nobody knows their names. */
  unknownNs: number;
}

function matchFrames(frames: FrameTable, test: Test): Uint8Array {
  const matching = new Uint8Array(frames.name.length);
  for (let frame = 0; frame < matching.length; frame += 1) {
    if (test(frames.name[frame]!, frames.binary[frame]!)) matching[frame] = 1;
  }
  return matching;
}

/** Finds all matches of a tree and their exact share. */
export function searchTree(tree: FlameTree, test: Test): Matches {
  const frames = matchFrames(tree.frames, test);
  const nodes: number[] = [];
  let totalNs = 0;
  let samples = 0;
  let unknownNs = 0;
  // Until this node, everything lies below a match that is counted already.
  let countedUntil = 0;
  for (let node = 1; node < tree.length; node += 1) {
    const frame = tree.frame[node]!;
    if (frame >= 0 && frames[frame] === 1) {
      nodes.push(node);
      if (node >= countedUntil) {
        totalNs += tree.total[node]!;
        samples += tree.samples[node]!;
        countedUntil = tree.end[node]!;
      }
    } else if (frame === CUT_FRAME && node >= countedUntil) {
      unknownNs += tree.total[node]!;
    }
  }
  return { frames, nodes: Int32Array.from(nodes), totalNs, samples, unknownNs };
}

/** Whether any match lies among the nodes from `first` up to `end`. */
export function hasMatchWithin({ nodes }: Matches, first: number, end: number): boolean {
  let low = 0;
  let high = nodes.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (nodes[middle]! < first) low = middle + 1;
    else high = middle;
  }
  return low < nodes.length && nodes[low]! < end;
}
