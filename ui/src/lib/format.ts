// Formats numbers for the page. The format does not depend on the browser's language, so that
// screenshots look the same for all readers.

const NARROW_SPACE = "\u202f";

/** `1 234 567` */
export function formatCount(count: number): string {
  return String(Math.round(count)).replaceAll(/\B(?=(\d{3})+$)/g, NARROW_SPACE);
}

/** Three significant digits: 0.0123, 1.23, 12.3, 123. */
export function formatSignificant(value: number): string {
  if (value === 0) return "0";
  // Round first: 0.9996 becomes 1.00, with one digit before the point.
  const rounded = Number(value.toPrecision(3));
  const digits = Math.max(0, Math.min(6, 2 - Math.floor(Math.log10(Math.abs(rounded)))));
  const text = rounded.toFixed(digits);
  return digits > 2 ? text.replace(/\.?0+$/, "") : text;
}

/** CPU time in nanoseconds as `41 min 20 s`, `8.12 s`, `120 ms`. */
export function formatDuration(ns: number): string {
  const seconds = ns / 1e9;
  if (ns === 0) return "0 s";
  if (seconds < 1e-6) return `${formatSignificant(ns)} ns`;
  if (seconds < 1e-3) return `${formatSignificant(ns / 1e3)} µs`;
  if (seconds < 0.9995) return `${formatSignificant(ns / 1e6)} ms`;
  if (seconds < 59.95) return `${formatSignificant(seconds)} s`;
  return joinUnits(Math.round(seconds));
}

function joinUnits(seconds: number): string {
  const units: [string, number][] = [["d", 86_400], ["h", 3_600], ["min", 60], ["s", 1]];
  const first = units.findIndex(([, length]) => seconds >= length);
  const [[large, largeLength], small] = [units[first]!, units[first + 1]];
  const whole = Math.floor(seconds / largeLength);
  if (!small) return `${whole} ${large}`;
  const rest = Math.floor((seconds - whole * largeLength) / small[1]);
  return rest === 0 ? `${whole} ${large}` : `${whole} ${large} ${rest} ${small[0]}`;
}

/** A share from 0 to 1 as a percentage; only exact 0 and 1 are shown as 0 % and 100 %. */
export function formatPercent(share: number): string {
  if (!Number.isFinite(share)) return "–";
  const percent = share * 100;
  if (percent === 0) return "0 %";
  if (percent < 0.01) return "< 0.01 %";
  if (percent < 10) return `${percent.toFixed(2)} %`;
  if (share < 1 && percent >= 99.95) return `${(Math.floor(percent * 100) / 100).toFixed(2)} %`;
  return percent >= 100 ? `${percent.toFixed(0)} %` : `${percent.toFixed(1)} %`;
}

/** Formats the duration of a step in whole units: `10 s`, `2 min`. */
export function formatStep(ms: number): string {
  if (ms % 3_600_000 === 0) return `${ms / 3_600_000} h`;
  return ms % 60_000 === 0 ? `${ms / 60_000} min` : `${ms / 1000} s`;
}

/** CPU cores: `1.92`, `0.031`. */
export function formatCores(cores: number): string {
  return formatSignificant(cores);
}

/** `512 B`, `3.00 MiB`, `12.1 GiB` */
export function formatBytes(bytes: number): string {
  const power = Math.min(4, Math.floor(Math.log2(Math.max(bytes, 1)) / 10));
  return `${formatSignificant(bytes / 1024 ** power)} ${["B", "KiB", "MiB", "GiB", "TiB"][power]}`;
}

/** Formats the ticks of an axis, all with as many decimals as the most precise one needs. */
export function formatTicks(ticks: readonly number[]): string[] {
  const isExact = (digits: number): boolean => ticks.every((tick) => Math.abs(Number(tick.toFixed(digits)) - tick) <= Math.abs(tick) * 1e-9);
  const digits = [0, 1, 2, 3, 4, 5, 6].find(isExact) ?? 6;
  return ticks.map((tick) => tick.toFixed(digits));
}

/** A number with a singular or plural noun: `1 node`, `2 nodes`. */
export function formatNumberOf(count: number, one: string, many = `${one}s`): string {
  return `${formatCount(count)} ${count === 1 ? one : many}`;
}
