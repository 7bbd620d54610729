// Prepares names for display. Names come from arbitrary binaries and can contain any characters;
// searching and copying use the original name.

/** Longer names are truncated; C++ template names exceed 10,000 characters. */
const SHOWN_CHARACTERS_MAX = 600;

// Control characters, bidirectional formatting characters and invisible characters.
const UNSAFE = /[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]/g;

/** Replaces invisible characters and those that change the text direction by `�`. */
export function showUnsafe(name: string): string {
  return name.replaceAll(UNSAFE, "\ufffd");
}

/** Truncates a name to a readable length; `hidden` is the number of omitted characters. */
export function cutName(name: string): { text: string; hidden: number } {
  const safe = showUnsafe(name);
  if (safe.length <= SHOWN_CHARACTERS_MAX) return { text: safe, hidden: 0 };
  return { text: safe.slice(0, SHOWN_CHARACTERS_MAX), hidden: safe.length - SHOWN_CHARACTERS_MAX };
}

const OPENING = "<([";
const CLOSING = ">)]";

/** The symbols after `operator` in a C++ name: they are not brackets. */
const OPERATOR = /(?:\(\)|[<>=!+\-*/&|^~%]+)/y;

/**
 * For each opening bracket the position of the closing one, 0 elsewhere. One pass, since hostile
 * names are long.
 */
function matchBrackets(name: string): Int32Array {
  const closings = new Int32Array(name.length);
  const open: number[] = [];
  for (let at = 0; at < name.length; at += 1) {
    const char = name[at]!;
    const symbols = readOperator(name, at);
    if (symbols > 0) at += symbols - 1;
    else if (OPENING.includes(char)) open.push(at);
    else if (CLOSING.includes(char) && name[at - 1] !== "-") {
      const opening = open.pop();
      if (opening !== undefined) closings[opening] = at;
    }
  }
  return closings;
}

/** The number of symbols at this position that belong to a preceding `operator`. */
function readOperator(name: string, at: number): number {
  if (!name.endsWith("operator", at)) return 0;
  OPERATOR.lastIndex = at;
  return OPERATOR.exec(name)?.[0].length ?? 0;
}

/**
 * Shortens the text in brackets: `f<A<B>, C>(D)` becomes `f<…>(…)`. Brackets of an operator, of an
 * arrow, or at the start of the name (`<impl X>::f`) stay.
 */
export function collapseBrackets(name: string): string {
  const closings = matchBrackets(name);
  let short = "";
  let at = 0;
  let afterOperator = false;
  while (at < name.length) {
    const char = name[at]!;
    const symbols = readOperator(name, at);
    if (symbols > 0) {
      short += name.slice(at, at + symbols);
      at += symbols;
      afterOperator = true;
      continue;
    }
    const end = closings[at]!;
    const follows = afterOperator || (at > 0 && /[\w:>]/.test(name[at - 1]!));
    afterOperator = false;
    if ((char === "<" || char === "(") && follows && end > at + 2) {
      short += `${char}…${name[end]!}`;
      at = end + 1;
    } else {
      short += char;
      at += 1;
    }
  }
  return short;
}

/** The last part of a path: `/usr/lib/libc.so.6` -> `libc.so.6`. */
export function baseName(path: string): string {
  const at = path.lastIndexOf("/");
  return at >= 0 && at < path.length - 1 ? path.slice(at + 1) : path;
}

/** Quotes a word for a POSIX shell. */
export function quoteForShell(word: string): string {
  if (/^[\w@%+=:,./-]+$/.test(word)) return word;
  return `'${word.replaceAll("'", `'\\''`)}'`;
}

/**
 * The forms of a name from longest to shortest: the whole name, with brackets collapsed, the last
 * two parts of its path, the last part.
 */
export function listShortForms(name: string): string[] {
  const whole = showUnsafe(name);
  const collapsed = collapseBrackets(whole);
  const parts = splitPath(collapsed);
  const forms = [whole, collapsed, parts.slice(-2).join("::"), parts.at(-1)!];
  return forms.filter((form, at) => form !== "" && forms.indexOf(form) === at);
}

/** Splits at `::` outside of brackets: `<a::B as c::D>::f` has two parts. */
function splitPath(name: string): string[] {
  const parts: string[] = [];
  let level = 0;
  let start = 0;
  for (let at = 0; at < name.length; at += 1) {
    const char = name[at]!;
    if (OPENING.includes(char)) level += 1;
    else if (CLOSING.includes(char) && name[at - 1] !== "-") level -= 1;
    else if (level === 0 && name.startsWith("::", at)) {
      parts.push(name.slice(start, at));
      start = at + 2;
      at += 1;
    }
  }
  parts.push(name.slice(start));
  return parts;
}
