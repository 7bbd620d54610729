// Selectors in PromQL's syntax: text -> matchers, matchers -> text, and the page's edits of them.
// Pure: does not know which labels exist.

export const OPERATORS = ["=", "!=", "=~", "!~"] as const;
export type Operator = (typeof OPERATORS)[number];

export interface Matcher {
  label: string;
  operator: Operator;
  value: string;
}

export interface SelectorError {
  message: string;
  /** Position in the text in UTF-16 code units. */
  position: number;
  hint?: string;
}

export type ParsedSelector = { matchers: Matcher[]; error?: undefined } | { matchers?: undefined; error: SelectorError };

export type TokenKind = "open" | "close" | "comma" | "operator" | "name" | "value" | "bad";

export interface Token {
  kind: TokenKind;
  text: string;
  start: number;
  end: number;
  /** Only for a value: the text between the quotes, with escapes resolved. */
  value?: string;
  /** Only for a value: the closing quote is present. */
  closed?: boolean;
}

const NAME = /[a-zA-Z_][a-zA-Z0-9_]*/y;
const SPACE = /\s+/y;
const ESCAPES: Record<string, string> = { n: "\n", t: "\t", r: "\r", "\\": "\\", '"': '"', "'": "'" };

function match(pattern: RegExp, text: string, at: number): string | null {
  pattern.lastIndex = at;
  return pattern.exec(text)?.[0] ?? null;
}

/**
 * Reads a quoted value from `start` on; without a closing quote it extends to the end of the text.
 */
function readValue(text: string, start: number): Token {
  const quote = text[start]!;
  let value = "";
  let at = start + 1;
  while (at < text.length) {
    const char = text[at]!;
    if (char === quote) {
      return { kind: "value", text: text.slice(start, at + 1), start, end: at + 1, value, closed: true };
    }
    if (char === "\\" && quote !== "`" && at + 1 < text.length) {
      const escaped = text[at + 1]!;
      // An unknown escape stays unchanged: `\.` in a regular expression.
      value += ESCAPES[escaped] ?? char + escaped;
      at += 2;
      continue;
    }
    value += char;
    at += 1;
  }
  return { kind: "value", text: text.slice(start), start, end: text.length, value, closed: false };
}

/**
 * Splits a selector into tokens. Never fails: unknown characters become tokens of the kind `bad`.
 */
export function readTokens(text: string): Token[] {
  const tokens: Token[] = [];
  const single: Record<string, TokenKind> = { "{": "open", "}": "close", ",": "comma" };
  let at = 0;
  while (at < text.length) {
    const space = match(SPACE, text, at);
    if (space !== null) {
      at += space.length;
      continue;
    }
    const char = text[at]!;
    const name = match(NAME, text, at);
    let token: Token;
    if (char in single) {
      token = { kind: single[char]!, text: char, start: at, end: at + 1 };
    } else if (char === '"' || char === "'" || char === "`") {
      token = readValue(text, at);
    } else if (char === "=" || char === "!") {
      const two = text.slice(at, at + 2);
      const operator = two === "=~" || two === "!=" || two === "!~" ? two : char;
      token = { kind: operator === "!" ? "bad" : "operator", text: operator, start: at, end: at + operator.length };
    } else if (name !== null) {
      token = { kind: "name", text: name, start: at, end: at + name.length };
    } else {
      const codePoint = String.fromCodePoint(text.codePointAt(at)!);
      token = { kind: "bad", text: codePoint, start: at, end: at + codePoint.length };
    }
    tokens.push(token);
    at = token.end;
  }
  return tokens;
}

function fail(message: string, position: number, hint?: string): ParsedSelector {
  return { error: hint === undefined ? { message, position } : { message, position, hint } };
}

/**
 * Parses a selector. The empty text is `{}`, and the braces are optional (`comm="sort"`), since
 * people leave them out; {@link formatSelector} adds them for the server.
 */
export function parseSelector(text: string): ParsedSelector {
  const tokens = readTokens(text);
  const matchers: Matcher[] = [];
  const braced = tokens[0]?.kind === "open";
  let at = braced ? 1 : 0;
  const position = (index: number): number => tokens[index]?.start ?? text.length;

  while (at < tokens.length && tokens[at]!.kind !== "close") {
    const name = tokens[at]!;
    if (name.kind !== "name") {
      return fail("expected a label name", name.start, 'a matcher looks like comm="sort"');
    }
    const operator = tokens[at + 1];
    if (operator?.kind !== "operator") {
      return fail(`expected =, !=, =~ or !~ after ${name.text}`, position(at + 1), `write ${name.text}="…"`);
    }
    const value = tokens[at + 2];
    if (value?.kind !== "value") {
      const near = value?.kind === "name" ? value.text : "…";
      return fail("expected a quoted value", position(at + 2), `write ${name.text}${operator.text}"${near}"`);
    }
    if (!value.closed) return fail("the value's closing quote is missing", value.start, `close it with ${value.text[0]!}`);
    matchers.push({ label: name.text, operator: operator.text as Operator, value: value.value! });
    at += 3;
    const next = tokens[at];
    if (next?.kind === "comma") at += 1;
    else if (next && next.kind !== "close") return fail("expected a comma between matchers", next.start, "separate matchers with a comma");
  }

  if (braced && at >= tokens.length) return fail("the closing brace is missing", text.length, "add } at the end");
  if (!braced && at < tokens.length) return fail("there is no { that this closes", position(at), "remove it, or add { at the start");
  if (at + 1 < tokens.length) return fail("nothing may follow the closing brace", position(at + 1), "remove what follows }");
  return { matchers };
}

/** Quotes a value in the syntax of {@link parseSelector} and of the server. */
export function quoteValue(value: string): string {
  const escaped = value
    .replaceAll("\\", "\\\\")
    .replaceAll('"', '\\"')
    .replaceAll("\n", "\\n")
    .replaceAll("\r", "\\r")
    .replaceAll("\t", "\\t");
  return `"${escaped}"`;
}

export function formatMatcher(matcher: Matcher): string {
  return `${matcher.label}${matcher.operator}${quoteValue(matcher.value)}`;
}

export function formatSelector(matchers: readonly Matcher[]): string {
  return `{${matchers.map(formatMatcher).join(", ")}}`;
}

export function equalMatchers(a: Matcher, b: Matcher): boolean {
  return a.label === b.label && a.operator === b.operator && a.value === b.value;
}

/**
 * Adds a matcher. An equality replaces an earlier equality on the same label, since the two
 * together select nothing. The inverse of the new matcher is removed.
 */
export function addMatcher(matchers: readonly Matcher[], added: Matcher): Matcher[] {
  const kept = matchers.filter((old) => {
    if (old.label !== added.label) return true;
    if (equalMatchers(old, added)) return false;
    if (added.operator === "=" && old.operator === "=") return false;
    const opposite = old.operator === flipOperator(added.operator) && old.value === added.value;
    return !opposite;
  });
  return [...kept, added];
}

export function removeMatcher(matchers: readonly Matcher[], removed: Matcher): Matcher[] {
  return matchers.filter((old) => !equalMatchers(old, removed));
}

/** The inverse operator. */
export function flipOperator(operator: Operator): Operator {
  const flipped: Record<Operator, Operator> = { "=": "!=", "!=": "=", "=~": "!~", "!~": "=~" };
  return flipped[operator];
}
