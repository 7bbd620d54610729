// What could be typed at the caret of a selector: its text and the caret's place
// in, the kind of thing that is wanted there out. It never knows the real labels
// and values; the state asks the server for them.
import { formatSelector, quoteValue, readTokens, type Matcher, type Operator, type Token } from "./selector.ts";

export type Wanted =
  | { kind: "label"; prefix: string; from: number; to: number; used: string[] }
  | { kind: "operator"; label: string; prefix: string; from: number; to: number }
  | { kind: "value"; label: string; prefix: string; from: number; to: number; others: Matcher[] };

export interface Edit {
  text: string;
  caret: number;
}

/** Matchers that are whole, leaving out the one that covers `skip`. */
function readWholeMatchers(tokens: readonly Token[], skip: number): Matcher[] {
  const matchers: Matcher[] = [];
  for (let at = 0; at + 2 < tokens.length; at += 1) {
    const [name, operator, value] = [tokens[at]!, tokens[at + 1]!, tokens[at + 2]!];
    const whole = name.kind === "name" && operator.kind === "operator" && value.kind === "value" && value.closed;
    if (whole && !(name.start <= skip && skip <= value.end)) {
      matchers.push({ label: name.text, operator: operator.text as Operator, value: value.value! });
    }
  }
  return matchers;
}

/** Says what is wanted at the caret, or null where nothing can be offered. */
export function findWanted(text: string, caret: number): Wanted | null {
  const tokens = readTokens(text);
  const inside = tokens.findIndex((token) => token.start < caret && caret <= token.end);
  const current = inside >= 0 ? tokens[inside]! : undefined;
  const before = tokens.filter((token) => token.end <= caret && token !== current);
  const others = readWholeMatchers(tokens, caret);
  const used = others.map((matcher) => matcher.label);

  if (current?.kind === "value") {
    if (current.closed && caret === current.end) return null;
    const [name, operator] = [tokens[inside - 2], tokens[inside - 1]];
    if (name?.kind !== "name" || operator?.kind !== "operator") return null;
    const prefix = text.slice(current.start + 1, caret);
    // An open quote swallows the rest of the text; only what is before the caret is meant.
    const to = current.closed ? current.end : text.endsWith("}") && caret < text.length ? text.length - 1 : current.end;
    return { kind: "value", label: name.text, prefix, from: current.start, to, others };
  }
  const previous = before.at(-1);
  if (current?.kind === "name") {
    if (previous?.kind === "operator") {
      const name = before.at(-2);
      if (name?.kind !== "name") return null;
      return { kind: "value", label: name.text, prefix: text.slice(current.start, caret), from: current.start, to: current.end, others };
    }
    if (previous === undefined || previous.kind === "open" || previous.kind === "comma") {
      return { kind: "label", prefix: text.slice(current.start, caret), from: current.start, to: current.end, used };
    }
    return null;
  }
  if (current?.kind === "operator" || (current?.kind === "bad" && current.text === "!")) {
    if (previous?.kind !== "name") return null;
    if (current.kind === "operator") return { kind: "value", label: previous.text, prefix: "", from: caret, to: caret, others };
    return { kind: "operator", label: previous.text, prefix: current.text, from: current.start, to: current.end };
  }
  const last = current ?? previous;
  if (last === undefined || last.kind === "open" || last.kind === "comma") {
    return { kind: "label", prefix: "", from: caret, to: caret, used };
  }
  if (last.kind === "name") return { kind: "operator", label: last.text, prefix: "", from: caret, to: caret };
  if (last.kind === "operator") {
    const name = before.at(-2);
    if (name?.kind !== "name") return null;
    return { kind: "value", label: name.text, prefix: "", from: caret, to: caret, others };
  }
  return null;
}

/** Candidates that fit what was typed: those that start with it first, then those that contain it. */
export function rankCandidates(candidates: readonly string[], prefix: string, limit: number): string[] {
  const wanted = prefix.toLowerCase();
  const starts: string[] = [];
  const contains: string[] = [];
  for (const candidate of candidates) {
    const at = candidate.toLowerCase().indexOf(wanted);
    if (at === 0) starts.push(candidate);
    else if (at > 0) contains.push(candidate);
  }
  return [...starts, ...contains].slice(0, limit);
}

/** Puts a chosen candidate into the text, with the braces, quotes and comma it needs. */
export function applyCandidate(text: string, wanted: Wanted, candidate: string): Edit {
  let inserted = candidate;
  let after = text.slice(wanted.to);
  if (wanted.kind === "label") inserted = /^\s*[=!]/.test(after) ? candidate : `${candidate}=`;
  if (wanted.kind === "value") {
    inserted = quoteValue(candidate);
    if (!after.includes("}")) after = `${after.trimEnd()}}`;
  }
  let before = text.slice(0, wanted.from);
  if (!before.trimStart().startsWith("{")) before = `{${before}`;
  if (/,$/.test(before)) before += " ";
  const start = before + inserted;
  return { text: start + after, caret: start.length };
}

/** The selector that values for a label are asked within: all other whole matchers. */
export function contextQuery(wanted: Wanted): string {
  return wanted.kind === "value" ? formatSelector(wanted.others) : "{}";
}
