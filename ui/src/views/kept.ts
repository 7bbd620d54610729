// What the store has and how long it keeps it, in words.
import type { Kept, UnreadWindows } from "../api/shapes.ts";
import { formatBytes, formatDuration, formatNumberOf, formatStep } from "../lib/format.ts";
import { formatTime, type TimeZone } from "../lib/time-range.ts";

const formatAge = (ms: number): string => formatDuration(ms * 1e6);

/** One sentence a line. */
export function describeKept(kept: Kept, damage: UnreadWindows[], zone: TimeZone): string[] {
  const has = kept.oldest_ms === null ? "No profiles are stored." : `Profiles since ${formatTime(kept.oldest_ms, zone)}, ${formatBytes(kept.bytes)}.`;
  const rules = kept.roll_ups.map(({ after_ms: age, resolution_ms: step }) => `${formatStep(step)} after ${formatAge(age)}`);
  return [has, describeDamage(damage), describeLimits(kept), rules.length > 0 && `Windows become longer: ${rules.join(", ")}.`].filter((line) => line !== false);
}

function describeDamage([first, ...others]: UnreadWindows[]): string | false {
  if (!first) return false;
  const more = others.length > 0 ? `, and ${formatNumberOf(others.length, "other file")}` : "";
  return `Damaged: ${first.reason}${more}. Answers that need it say that they are incomplete.`;
}

function describeLimits({ age_ms: age, bytes_max: bytesMax, beyond_defaults: beyond }: Kept): string {
  const limits = [age !== null && `for ${formatAge(age)}`, bytesMax !== null && `up to ${formatBytes(bytesMax)}`].filter(Boolean);
  if (limits.length > 0) return `Kept ${limits.join(", ")}; the oldest are evicted first.`;
  const nothing = "Nothing is evicted: the server has neither --retention nor --retention-bytes.";
  if (!beyond || beyond.files === 0) return nothing;
  return `${nothing} The ${formatAge(beyond.age_ms)} of a new directory would evict ${formatNumberOf(beyond.files, "file")}, ${formatBytes(beyond.bytes)}.`;
}
