// Searches functions in a tree: search text -> matching frames -> their share of the CPU time, with
// each stack counted once.
import { CUT_FRAME, type FlameTree, type FrameTable } from "./flame-tree.ts";

/** Whether one function matches. */
export type FunctionPredicate = (name: string, binary: string) => boolean;

export type CompiledSearch = { test: FunctionPredicate; error?: undefined } | { test: null; error?: string };

/**
 * Parses the search text: a substring of the name or binary in any case, `/regular expression/`
 * (with `i` for any case), or `=name @ binary` for one exact function. An empty text matches
 * nothing.
 */
export function compileSearch(text: string): CompiledSearch {
  const typed = text.trim();
  if (typed === "" || typed === "/" || typed === "=") return { test: null };
  if (typed.startsWith("=")) return { test: compileExact(typed.slice(1)) };
  const regex = /^\/(.+?)(?:\/(i?))?$/s.exec(typed);
  // A path is not a regular expression: `/usr/bin` is a substring.
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

function compileExact(wanted: string): FunctionPredicate {
  const at = wanted.lastIndexOf(" @ ");
  if (at < 0) return (name) => name === wanted;
  const [wantedName, wantedBinary] = [wanted.slice(0, at), wanted.slice(at + 3)];
  return (name, binary) => name === wantedName && binary === wantedBinary;
}

/** The search text for exactly this function. */
export function exactSearch(name: string, binary: string): string {
  return binary === "" ? `=${name}` : `=${name} @ ${binary}`;
}

export interface Matches {
  /** 1 for each matching frame. */
  frames: Uint8Array;
  /** Matching nodes, in preorder. */
  nodes: Int32Array;
  /** CPU time of the stacks with a match, each counted once, in nanoseconds. */
  totalNs: number;
  samples: number;
  /**
   * CPU time of cut nodes that are not below a match, in nanoseconds: the names in them are
   * unknown.
   */
  unknownNs: number;
}

function matchFrames(frames: FrameTable, test: FunctionPredicate): Uint8Array {
  const matching = new Uint8Array(frames.name.length);
  for (let frame = 0; frame < matching.length; frame += 1) {
    if (test(frames.name[frame]!, frames.binary[frame]!)) matching[frame] = 1;
  }
  return matching;
}

/** Finds all matches in a tree and their exact share of the CPU time. */
export function searchTree(tree: FlameTree, test: FunctionPredicate): Matches {
  const frames = matchFrames(tree.frames, test);
  const nodes: number[] = [];
  let totalNs = 0;
  let samples = 0;
  let unknownNs = 0;
  // All nodes before this one are descendants of a match that is already counted.
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

/** Whether any match is among the nodes from `first` to before `end`. */
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
