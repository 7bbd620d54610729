// Finds the completion context at the caret of a selector (a label, an operator or a value) from
// the text and the caret's position. Pure: state/ requests the real labels and values from the
// server.
import { formatSelector, quoteValue, readTokens, type Matcher, type Operator, type Token } from "./selector.ts";

export type CompletionContext =
  | { kind: "label"; prefix: string; from: number; to: number; used: string[] }
  | { kind: "operator"; label: string; prefix: string; from: number; to: number }
  | { kind: "value"; label: string; prefix: string; from: number; to: number; others: Matcher[] };

export interface TextEdit {
  text: string;
  caret: number;
}

/** The complete matchers of a selector, except for the one at the position `skip`. */
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

/** Returns the completion context at the caret, or null where there is nothing to complete. */
export function findCompletionContext(text: string, caret: number): CompletionContext | null {
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
    // An open quote extends to the end of the text; the value ends at the caret.
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

/** The labels that name a pod's place in its cluster, from the widest to the narrowest. */
const PLACE_LABELS = ["namespace", "workload", "pod", "container"];

/** Label names in the order in which they are offered: those of a pod's place first. The others keep their order. */
export function orderLabels(names: readonly string[]): string[] {
  return [...PLACE_LABELS.filter((name) => names.includes(name)), ...names.filter((name) => !PLACE_LABELS.includes(name))];
}

/**
 * Filters candidates by the typed text: first those that start with it, then those that contain it.
 */
export function rankCandidates(candidates: readonly string[], prefix: string, limit: number): string[] {
  const typed = prefix.toLowerCase();
  const starts: string[] = [];
  const contains: string[] = [];
  for (const candidate of candidates) {
    const at = candidate.toLowerCase().indexOf(typed);
    if (at === 0) starts.push(candidate);
    else if (at > 0) contains.push(candidate);
  }
  return [...starts, ...contains].slice(0, limit);
}

/** Inserts a chosen candidate into the text, with the necessary braces, quotes and comma. */
export function applyCandidate(text: string, context: CompletionContext, candidate: string): TextEdit {
  let inserted = candidate;
  let after = text.slice(context.to);
  if (context.kind === "label") inserted = /^\s*[=!]/.test(after) ? candidate : `${candidate}=`;
  if (context.kind === "value") {
    inserted = quoteValue(candidate);
    if (!after.includes("}")) after = `${after.trimEnd()}}`;
  }
  let before = text.slice(0, context.from);
  if (!before.trimStart().startsWith("{")) before = `{${before}`;
  if (/,$/.test(before)) before += " ";
  const start = before + inserted;
  return { text: start + after, caret: start.length };
}

/** The selector for requesting a label's values: all other complete matchers. */
export function valuesQuery(context: CompletionContext): string {
  return context.kind === "value" ? formatSelector(context.others) : "{}";
}
