// The time range: presets, absolute times, earlier and later, refresh.
import type { JSX } from "preact";
import { useEffect, useId, useState } from "preact/hooks";
import {
  describeRange, formatRange, formatRfc3339, isRelative, normalizeTime, PRESETS, resolveRange, shiftRange, widenRange,
  type RangeMs, type RangeText, type TimeZone,
} from "../lib/time-range.ts";
import type { Kept, UnreadWindows } from "../api/shapes.ts";
import { describeKept } from "./kept.ts";
import { REFRESH_SECONDS } from "../lib/url-state.ts";
import { Icon } from "./icons.tsx";
import { Popover } from "./popover.tsx";

export interface TimePickerProps {
  range: RangeText;
  zone: TimeZone;
  refreshSeconds: number;
  loading: boolean;
  /** Null before the server's first answer. */
  kept: Kept | null;
  damage: UnreadWindows[];
  readClock(): number;
  onRange(range: RangeText): void;
  onZone(zone: TimeZone): void;
  onRefreshSeconds(seconds: number): void;
  onRefresh(): void;
}

/** Formats an absolute range for the URL. */
export function toRangeText({ fromMs, toMs }: RangeMs): RangeText {
  return { from: formatRfc3339(fromMs), to: formatRfc3339(toMs) };
}

export function TimePicker(props: TimePickerProps): JSX.Element {
  const { range, zone, onRange, readClock } = props;
  const now = readClock();
  const move = (change: (range: RangeMs) => RangeMs): void => {
    try {
      onRange(toRangeText(change(resolveRange(range, readClock(), zone))));
    } catch {
      // The field with the invalid time shows the error.
    }
  };
  const relative = isRelative(range.from) || isRelative(range.to);
  return (
    <div class="time" role="group" aria-label="Time range">
      <div class="segments">
        {PRESETS.map((preset) => (
          <button
            type="button"
            key={preset.label}
            title={preset.title}
            aria-pressed={range.from === preset.from && range.to === "now"}
            onClick={() => onRange({ from: preset.from, to: "now" })}
          >
            {preset.label}
          </button>
        ))}
      </div>
      <button type="button" class="tool" title="Earlier" aria-label="Earlier" onClick={() => move((ms) => shiftRange(ms, -1))}><Icon name="left" /></button>
      <Popover
        class="time-custom"
        align="end"
        title="Choose the time range"
        button={<><Icon name="clock" /><span class="time-text">{describeRange(range, now, zone)}</span><Icon name="down" /></>}
      >
        {(close) => <AbsoluteTimes {...props} onDone={close} />}
      </Popover>
      <button type="button" class="tool" title="Later" aria-label="Later" disabled={relative} onClick={() => move((ms) => shiftRange(ms, 1))}><Icon name="right" /></button>
      <button type="button" class="tool" title="Twice the range" aria-label="Twice the range" onClick={() => move((ms) => widenRange(ms, readClock()))}><Icon name="wider" /></button>
      <div class="refresh">
        <button type="button" class="tool" title="Refresh" aria-label="Refresh" aria-busy={props.loading} onClick={props.onRefresh}><Icon name="refresh" /></button>
        <select
          aria-label="Refresh by itself"
          title={relative ? "Refresh by itself" : "Only ranges that end at a moving time refresh by themselves"}
          disabled={!relative}
          value={String(props.refreshSeconds)}
          onChange={(event) => props.onRefreshSeconds(Number(event.currentTarget.value))}
        >
          {REFRESH_SECONDS.map((seconds) => (
            <option key={seconds} value={String(seconds)}>{seconds === 0 ? "off" : seconds < 60 ? `${seconds} s` : `${seconds / 60} min`}</option>
          ))}
        </select>
      </div>
    </div>
  );
}

interface Wrong {
  end: "from" | "to";
  message: string;
}

function AbsoluteTimes({ range, zone, kept, damage, readClock, onRange, onZone, onDone }: TimePickerProps & { onDone(): void }): JSX.Element {
  const id = useId();
  const [draft, setDraft] = useState(range);
  const [wrong, setWrong] = useState<Wrong | null>(null);
  useEffect(() => setDraft(range), [range.from, range.to]);

  const normalize = (end: "from" | "to"): string | null => {
    try {
      return normalizeTime(draft[end], readClock(), zone);
    } catch (error) {
      setWrong({ end, message: (error as Error).message });
      return null;
    }
  };
  const apply = (event: Event): void => {
    event.preventDefault();
    setWrong(null);
    const from = normalize("from");
    const to = from === null ? null : normalize("to");
    if (from === null || to === null) return;
    try {
      resolveRange({ from, to }, readClock());
    } catch (error) {
      return setWrong({ end: "to", message: (error as Error).message });
    }
    onRange({ from, to });
    onDone();
  };
  const shown = (): string => {
    try {
      return formatRange(resolveRange(draft, readClock(), zone), zone);
    } catch {
      return "";
    }
  };
  const field = (end: "from" | "to", label: string): JSX.Element => (
    <div class="field">
      <label for={`${id}-${end}`}>{label}</label>
      <input
        id={`${id}-${end}`}
        type="text"
        value={draft[end]}
        spellcheck={false}
        autocomplete="off"
        aria-invalid={wrong?.end === end}
        aria-describedby={wrong?.end === end ? `${id}-wrong` : undefined}
        onInput={(event) => setDraft({ ...draft, [end]: event.currentTarget.value })}
      />
      {wrong?.end === end && <span class="field-error" id={`${id}-wrong`} role="alert">{wrong.message}</span>}
    </div>
  );
  return (
    <form class="times" onSubmit={apply}>
      {field("from", "From")}
      {field("to", "To")}
      <p class="muted times-shown">{shown() || "\u00a0"}</p>
      <p class="muted">2026-11-23 02:00 · 2026-11-23T02:00:00Z · 1795312800 · now-15m</p>
      <div class="times-end">
        <div class="segments" role="group" aria-label="Times are shown in">
          <button type="button" aria-pressed={zone === "local"} onClick={() => onZone("local")}>Local time</button>
          <button type="button" aria-pressed={zone === "utc"} onClick={() => onZone("utc")}>UTC</button>
        </div>
        <button type="submit" class="primary">Apply</button>
      </div>
      {kept && <div class="muted times-kept">{describeKept(kept, damage, zone).map((line) => <p key={line}>{line}</p>)}</div>}
    </form>
  );
}
