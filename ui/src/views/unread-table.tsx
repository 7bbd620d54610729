// Windows that the server could not read, by time and reason.
import { Fragment, type JSX } from "preact";
import type { UnreadWindows } from "../api/shapes.ts";
import { formatCount, formatDuration } from "../lib/format.ts";
import { showUnsafe } from "../lib/text.ts";
import { formatRange, type TimeZone } from "../lib/time-range.ts";

export function UnreadTable({ incomplete, zone }: { incomplete: UnreadWindows[]; zone: TimeZone }): JSX.Element {
  return (
    <table class="facts">
      <thead><tr><th>time</th><th>windows</th><th title="CPU time of the selection in these windows, as far as it is known">CPU time</th></tr></thead>
      <tbody>
        {incomplete.map(({ from_ms: fromMs, to_ms: toMs, windows, cpu_ns: cpuNs, reason }) => (
          <Fragment key={`${fromMs} ${reason}`}>
            <tr>
              <td>{formatRange({ fromMs, toMs }, zone)}</td>
              <td class="number">{formatCount(windows)}</td>
              <td class="number">{cpuNs > 0 ? formatDuration(cpuNs) : "–"}</td>
            </tr>
            <tr><td colSpan={3} class="muted trouble"><bdi>{showUnsafe(reason)}</bdi></td></tr>
          </Fragment>
        ))}
      </tbody>
    </table>
  );
}
