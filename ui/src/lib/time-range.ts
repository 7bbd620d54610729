// Parses and formats times: user input and API values <-> milliseconds. Pure: the current time is a
// parameter.

export type TimeZone = "local" | "utc";

/** A range as the user typed it: each end is relative (`now-15m`) or absolute (RFC 3339). */
export interface RangeText {
  from: string;
  to: string;
}

/** A range in Unix milliseconds, `fromMs` included, `toMs` excluded. */
export interface RangeMs {
  fromMs: number;
  toMs: number;
}

export const PRESETS = [
  { label: "5m", from: "now-5m", title: "Last 5 minutes" },
  { label: "15m", from: "now-15m", title: "Last 15 minutes" },
  { label: "1h", from: "now-1h", title: "Last hour" },
  { label: "6h", from: "now-6h", title: "Last 6 hours" },
  { label: "24h", from: "now-24h", title: "Last 24 hours" },
] as const;

export const DEFAULT_RANGE: RangeText = { from: "now-15m", to: "now" };

/** The collectors' window length: the smallest useful range. */
export const WINDOW_MS = 10_000;

const UNIT_MS: Record<string, number> = {
  ms: 1,
  s: 1_000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
  w: 604_800_000,
};

/**
 * A bare number with at least this many digits is in milliseconds, else in seconds, as in the API.
 */
const MILLISECONDS_DIGITS_MIN = 12;

const RELATIVE = /^now(?:\s*([+-])\s*(\d+)\s*(ms|[smhdw]))?$/;
const CALENDAR = /^(\d{4})-(\d{2})-(\d{2})(?:[T ](\d{2}):(\d{2})(?::(\d{2})(?:\.(\d{1,9}))?)?)?\s*(Z|z|[+-]\d{2}:?\d{2})?$/;

export class TimeError extends Error {}

export function isRelative(text: string): boolean {
  return text.trim().startsWith("now");
}

/**
 * Parses a time. A date without a time zone is in `zone` (the API refuses such a date).
 * @throws TimeError that lists the accepted forms
 */
export function parseTime(text: string, nowMs: number, zone: TimeZone): number {
  const trimmed = text.trim();
  const relative = RELATIVE.exec(trimmed);
  if (relative) {
    if (relative[1] === undefined) return nowMs;
    const offset = Number(relative[2]) * UNIT_MS[relative[3]!]!;
    return relative[1] === "-" ? nowMs - offset : nowMs + offset;
  }
  if (/^\d+$/.test(trimmed)) {
    return trimmed.length >= MILLISECONDS_DIGITS_MIN ? Number(trimmed) : Number(trimmed) * 1000;
  }
  const calendar = CALENDAR.exec(trimmed);
  if (calendar) return parseCalendar(calendar, zone);
  if (trimmed.startsWith("now")) throw new TimeError("write now, or now-15m with a unit of ms s m h d w");
  throw new TimeError("write 2026-11-23 02:00, 2026-11-23T02:00:00Z, Unix seconds, or now-15m");
}

function parseCalendar(parts: RegExpExecArray, zone: TimeZone): number {
  const [year, month, day, hour, minute, second] = [1, 2, 3, 4, 5, 6].map((index) => Number(parts[index] ?? 0)) as [number, number, number, number, number, number];
  const millisecond = parts[7] === undefined ? 0 : Math.floor(Number(`0.${parts[7]}`) * 1000);
  const utc = Date.UTC(year, month - 1, day, hour, minute, second, millisecond);
  const check = new Date(utc);
  const exists = check.getUTCMonth() === month - 1 && check.getUTCDate() === day && check.getUTCHours() === hour && minute < 60 && second < 60;
  if (!exists) throw new TimeError("there is no such date or time");
  const offset = parts[8];
  if (offset === undefined) {
    return zone === "utc" ? utc : new Date(year, month - 1, day, hour, minute, second, millisecond).getTime();
  }
  if (offset === "Z" || offset === "z") return utc;
  const [hours, minutes] = [Number(offset.slice(1, 3)), Number(offset.slice(-2))];
  if (hours > 23 || minutes > 59) throw new TimeError("there is no such time zone");
  const shift = (hours * 60 + minutes) * 60_000;
  return offset.startsWith("-") ? utc + shift : utc - shift;
}

/**
 * Resolves a range relative to `nowMs`.
 * @throws TimeError when an end is invalid or the range is empty
 */
export function resolveRange(range: RangeText, nowMs: number, zone: TimeZone = "utc"): RangeMs {
  const fromMs = parseTime(range.from, nowMs, zone);
  const toMs = parseTime(range.to, nowMs, zone);
  if (toMs <= fromMs) throw new TimeError("the range ends before it starts");
  return { fromMs, toMs };
}

/**
 * Converts typed text to the form in the page's URL: relative times stay relative, others become
 * RFC 3339 in UTC.
 */
export function normalizeTime(text: string, nowMs: number, zone: TimeZone): string {
  const ms = parseTime(text, nowMs, zone);
  return isRelative(text) ? text.replaceAll(/\s/g, "") : formatRfc3339(ms);
}

export function formatRfc3339(ms: number): string {
  return new Date(ms).toISOString().replace(".000Z", "Z");
}

/** Doubles a range around its middle, but not beyond `nowMs`. */
export function widenRange({ fromMs, toMs }: RangeMs, nowMs: number): RangeMs {
  const length = toMs - fromMs;
  const end = Math.min(toMs + length / 2, Math.max(nowMs, toMs));
  return { fromMs: Math.floor(end - 2 * length), toMs: Math.ceil(end) };
}

/** Moves a range by half its length. */
export function shiftRange({ fromMs, toMs }: RangeMs, direction: -1 | 1): RangeMs {
  const shift = Math.round((toMs - fromMs) / 2) * direction;
  return { fromMs: fromMs + shift, toMs: toMs + shift };
}

const two = (number: number): string => String(number).padStart(2, "0");

interface CalendarParts {
  date: string;
  time: string;
  seconds: string;
}

function splitTime(ms: number, zone: TimeZone): CalendarParts {
  const date = new Date(ms);
  const local = zone === "local";
  const [year, month, day] = local
    ? [date.getFullYear(), date.getMonth(), date.getDate()]
    : [date.getUTCFullYear(), date.getUTCMonth(), date.getUTCDate()];
  const [hour, minute, second] = local
    ? [date.getHours(), date.getMinutes(), date.getSeconds()]
    : [date.getUTCHours(), date.getUTCMinutes(), date.getUTCSeconds()];
  return { date: `${year}-${two(month + 1)}-${two(day)}`, time: `${two(hour)}:${two(minute)}`, seconds: two(second) };
}

/** `2026-11-23 02:00:00` */
export function formatTime(ms: number, zone: TimeZone): string {
  const { date, time, seconds } = splitTime(ms, zone);
  return `${date} ${time}:${seconds}`;
}

/** `02:00`, or `02:00:00` if the steps are shorter than a minute. */
export function formatClock(ms: number, zone: TimeZone, stepMs: number): string {
  const { time, seconds } = splitTime(ms, zone);
  return stepMs < 60_000 ? `${time}:${seconds}` : time;
}

/** `11-23`, for the first tick of a day. */
export function formatDay(ms: number, zone: TimeZone): string {
  return splitTime(ms, zone).date.slice(5);
}

/** `2026-11-23 02:00:00 – 02:15:00`: without the second date if both are the same. */
export function formatRange({ fromMs, toMs }: RangeMs, zone: TimeZone): string {
  const from = splitTime(fromMs, zone);
  const to = splitTime(toMs, zone);
  const end = from.date === to.date ? `${to.time}:${to.seconds}` : `${to.date} ${to.time}:${to.seconds}`;
  return `${from.date} ${from.time}:${from.seconds} – ${end}`;
}

/** The text on the time picker's button: the preset's title, or the times. */
export function describeRange(range: RangeText, nowMs: number, zone: TimeZone): string {
  const preset = PRESETS.find((known) => known.from === range.from && range.to === "now");
  if (preset) return preset.title;
  if (isRelative(range.from) && isRelative(range.to)) return `${range.from} to ${range.to}`;
  try {
    return formatRange(resolveRange(range, nowMs, zone), zone);
  } catch {
    return `${range.from} to ${range.to}`;
  }
}
