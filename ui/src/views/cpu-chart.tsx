// The chart of CPU time in cores. uPlot draws it and handles dragging. Each step is one bar or one
// point; a step that no collector reported is a gap.
import type { JSX } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import type { TimeSeriesAnswer } from "../api/shapes.ts";
import { largestValue, meanCores, reportedMs, stackValues } from "../lib/chart-series.ts";
import { assignHues, chartPalette, restColour, toCss, type Theme } from "../lib/colour.ts";
import { formatCores, formatCount, formatStep, formatTicks } from "../lib/format.ts";
import { showUnsafe } from "../lib/text.ts";
import { formatClock, formatDay, formatRange, formatTime, type RangeMs, type TimeZone } from "../lib/time-range.ts";
import type { ChartStyle } from "../lib/url-state.ts";
import { readRem } from "./rem.ts";

export interface CpuChartProps {
  answer: TimeSeriesAnswer;
  by: string;
  labels: string[];
  style: ChartStyle;
  theme: Theme;
  zone: TimeZone;
  onBy(by: string): void;
  onStyle(style: ChartStyle): void;
  onZoom(range: RangeMs): void;
  onPick(value: string): void;
}

/** One line of the chart and of its legend. */
interface Line {
  key: string;
  label: string;
  /** The label's value, for filtering; null for the sum of the other series. */
  value: string | null;
  colour: string;
  values: (number | null)[];
  /** Mean number of cores over the reported time. */
  mean: number | null;
}

/** The height of `.chart-plot`, in rem. */
const CHART_HEIGHT_REM = 16.8;

function listLines(answer: TimeSeriesAnswer, by: string, theme: Theme): Line[] {
  const palette = chartPalette(theme);
  const valueOf = (labels: Record<string, string>): string => labels[by] ?? "";
  const hues = assignHues(answer.series.map(({ labels }) => valueOf(labels)));
  const ms = reportedMs(answer.covered_ms);
  const lines: Line[] = answer.series.map(({ labels, values, total_ns }) => {
    const value = valueOf(labels);
    const name = by === "" ? "all" : value === "" ? `no ${by}` : showUnsafe(value);
    return { key: `=${value}`, label: name, value: by === "" ? null : value, colour: toCss(palette[hues.get(value)!]!), values, mean: meanCores(total_ns, ms) };
  });
  if (answer.rest) {
    const { count, values, total_ns } = answer.rest;
    lines.push({ key: "rest", label: `${formatCount(count)} other${count === 1 ? "" : "s"}`, value: null, colour: toCss(restColour(theme)), values, mean: meanCores(total_ns, ms) });
  }
  return lines;
}

/**
 * Converts the answer to uPlot's columns: times in seconds, then one column per line in drawing
 * order.
 */
function toColumns(answer: TimeSeriesAnswer, lines: readonly Line[], style: ChartStyle): uPlot.AlignedData {
  const values = lines.map((line) => line.values);
  const times = Array.from({ length: values[0]?.length ?? 0 }, (_, at) => (answer.from_ms + at * answer.step_ms) / 1000);
  // The sums are drawn from the tallest to the shortest, each over the one before; so the largest
  // series is at the bottom.
  if (style === "stacked") return [times, ...stackValues(values).reverse()];
  // Two points for each step, since a single value between two gaps would be invisible.
  const length = answer.step_ms / 1000 - 0.001;
  return [times.flatMap((time) => [time, time + length]), ...values.map((column) => column.flatMap((value) => [value, value]))];
}

/** Bars with the width of a step, or a line. */
function seriesOptions(line: Line, style: ChartStyle): uPlot.Series {
  if (style === "lines") return { label: line.label, stroke: line.colour, width: 1.5, points: { show: false } };
  return { label: line.label, fill: line.colour, width: 0, paths: uPlot.paths.bars!({ size: [1, Infinity], align: 1, gap: 0 }), points: { show: false } };
}

interface Colours {
  axis: string;
  grid: string;
}

function readColours(element: Element): Colours {
  const style = getComputedStyle(element);
  return { axis: style.getPropertyValue("--muted").trim(), grid: style.getPropertyValue("--line").trim() };
}

export function CpuChart(props: CpuChartProps): JSX.Element {
  const { answer, by, style, theme, zone } = props;
  const holder = useRef<HTMLDivElement>(null);
  const [cursor, setCursor] = useState<number | null>(null);
  const lines = useMemo(() => listLines(answer, by, theme), [answer, by, theme]);
  const onZoom = useRef(props.onZoom);
  onZoom.current = props.onZoom;

  useEffect(() => {
    const element = holder.current!;
    const { axis, grid } = readColours(element);
    const drawn = style === "lines" ? lines : [...lines].reverse();
    const columns = toColumns(answer, lines, style);
    const highest = largestValue(columns.slice(1) as (number | null)[][]);
    const rem = readRem();
    const font = `${1.1 * rem}px system-ui, sans-serif`;
    const height = CHART_HEIGHT_REM * rem;
    const chart = new uPlot(
      {
        width: Math.max(200, element.clientWidth),
        height,
        padding: [0.8 * rem, 3 * rem, 0, 0],
        legend: { show: false },
        cursor: { drag: { x: true, y: false, setScale: false }, y: false, points: { show: false } },
        scales: {
          x: { time: true, range: () => [answer.from_ms / 1000, answer.to_ms / 1000] },
          y: { range: () => [0, highest === 0 ? 1 : highest * 1.06] },
        },
        axes: [
          {
            stroke: axis,
            font,
            size: 2.4 * rem,
            // The width of `02:00:00` plus a margin.
            space: 8 * rem,
            gap: 0.4 * rem,
            grid: { stroke: grid, width: 1 },
            ticks: { show: false },
            values: (_, ticks) => labelTicks(ticks, zone),
          },
          { stroke: axis, font, size: 4.6 * rem, gap: 0.6 * rem, grid: { stroke: grid, width: 1 }, ticks: { show: false }, splits: yTicks, values: (_, ticks) => formatTicks(ticks) },
        ],
        series: [{}, ...drawn.map((line) => seriesOptions(line, style))],
        tzDate: (seconds) => (zone === "utc" ? uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC") : new Date(seconds * 1000)),
        hooks: {
          setCursor: [(self) => setCursor((self.cursor.left ?? -1) >= 0 ? stepAt(self) : null)],
          setSelect: [
            (self) => {
              if (self.select.width < 4) return;
              const toMs = (pixel: number): number => Math.round(self.posToVal(pixel, "x") * 1000);
              const range = snapRange({ fromMs: toMs(self.select.left), toMs: toMs(self.select.left + self.select.width) }, answer.step_ms);
              self.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
              onZoom.current(range);
            },
          ],
        },
      },
      columns,
      element,
    );
    const stepAt = (self: uPlot): number | null => {
      const at = Math.floor((self.posToVal(self.cursor.left!, "x") * 1000 - answer.from_ms) / answer.step_ms);
      return at >= 0 && at < lines[0]!.values.length ? at : null;
    };
    const observer = new ResizeObserver(() => chart.setSize({ width: Math.max(200, element.clientWidth), height }));
    observer.observe(element);
    return () => {
      observer.disconnect();
      chart.destroy();
    };
  }, [answer, lines, style, theme, zone]);

  return (
    <section class="panel chart" aria-label="CPU over time">
      <ChartHead {...props} cursor={cursor} />
      <div class="chart-body">
        <div class="chart-plot" ref={holder} />
        <Legend lines={lines} cursor={cursor} onPick={props.onPick} by={by} />
      </div>
    </section>
  );
}

/** Extends a range to whole steps, at least one. */
function snapRange({ fromMs, toMs }: RangeMs, stepMs: number): RangeMs {
  const from = Math.floor(fromMs / stepMs) * stepMs;
  return { fromMs: from, toMs: Math.max(from + stepMs, Math.ceil(toMs / stepMs) * stepMs) };
}

/** Three or four round ticks from 0 on. */
function yTicks(_: uPlot, __: number, ___: number, max: number): number[] {
  const rough = max / 3;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough * 0.8) ?? rough;
  const ticks: number[] = [];
  for (let at = 0; at * step <= max; at += 1) ticks.push(at * step);
  return ticks;
}

/** Adds the date to the first tick and to the first tick of each day. */
function labelTicks(ticks: readonly number[], zone: TimeZone): string[] {
  const stepMs = ticks.length > 1 ? (ticks[1]! - ticks[0]!) * 1000 : 60_000;
  return ticks.map((tick, at) => {
    const ms = tick * 1000;
    const day = formatDay(ms, zone);
    const changed = at > 0 && formatDay(ticks[at - 1]! * 1000, zone) !== day;
    return changed ? day : formatClock(ms, zone, stepMs);
  });
}

function ChartHead({ answer, by, labels, style, zone, cursor, onBy, onStyle }: CpuChartProps & { cursor: number | null }): JSX.Element {
  const known = by === "" || labels.includes(by) ? labels : [by, ...labels];
  return (
    <header class="panel-head">
      <h2>CPU over time</h2>
      <span class="muted">cores</span>
      <label class="inline-field">
        by
        <select value={by} onChange={(event) => onBy(event.currentTarget.value)}>
          <option value="">nothing</option>
          {known.map((label) => <option key={label} value={label}>{label}</option>)}
        </select>
      </label>
      <div class="segments" role="group" aria-label="Chart style">
        <button type="button" aria-pressed={style === "stacked"} onClick={() => onStyle("stacked")}>Stacked</button>
        <button type="button" aria-pressed={style === "lines"} onClick={() => onStyle("lines")}>Lines</button>
      </div>
      <span class="spacer" />
      <span class="muted chart-when">
        {cursor === null
          ? `${formatRange({ fromMs: answer.from_ms, toMs: answer.to_ms }, zone)}${zone === "utc" ? " UTC" : ""} · ${formatStep(answer.step_ms)} a step · drag to zoom`
          : formatTime(answer.from_ms + cursor * answer.step_ms, zone)}
      </span>
    </header>
  );
}

interface LegendProps {
  lines: readonly Line[];
  by: string;
  /** The step under the pointer; null: show the means. */
  cursor: number | null;
  onPick(value: string): void;
}

function Legend({ lines, cursor, onPick, by }: LegendProps): JSX.Element {
  return (
    <div class="legend">
      <div class="legend-head muted"><span>{by || "all"}</span><span>{cursor === null ? "mean" : "cores"}</span></div>
      <ul>
        {lines.map((line) => {
          const value = cursor === null ? line.mean : (line.values[cursor] ?? null);
          const content = (
            <>
              <span class="swatch" style={{ background: line.colour }} />
              <bdi class="legend-name">{line.label}</bdi>
              <span class="number">{value === null ? "–" : formatCores(value)}</span>
            </>
          );
          return (
            <li key={line.key}>
              {line.value === null || line.value === "" ? <span class="legend-line">{content}</span> : (
                <button type="button" class="legend-line" title={`Only ${by}="${line.label}"`} onClick={() => onPick(line.value!)}>{content}</button>
              )}
            </li>
          );
        })}
      </ul>
    </div>
  );
}
