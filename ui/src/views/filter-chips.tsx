// Quick filters: one chip per matcher, to invert or remove it, and one per label, with a menu of
// its values and their CPU time.
import type { JSX } from "preact";
import { formatDuration, formatNumberOf, formatPercent } from "../lib/format.ts";
import { addMatcher, equalMatchers, flipOperator, formatMatcher, formatSelector, removeMatcher, type Matcher } from "../lib/selector.ts";
import { showUnsafe } from "../lib/text.ts";
import type { RangeMs } from "../lib/time-range.ts";
import { createValues } from "../state/labels.ts";
import { Icon } from "./icons.tsx";
import { Popover } from "./popover.tsx";
import { useAnswer } from "./use-answer.ts";

export interface FilterChipsProps {
  /** Null if the selector is invalid. */
  matchers: Matcher[] | null;
  labels: string[];
  /** The range for requesting labels and values. */
  readRange(): RangeMs;
  onMatchers(matchers: Matcher[]): void;
}

export function FilterChips({ matchers, labels, readRange, onMatchers }: FilterChipsProps): JSX.Element | null {
  if (matchers === null || (labels.length === 0 && matchers.length === 0)) return null;
  const flip = (matcher: Matcher): void =>
    onMatchers(matchers.map((old) => (equalMatchers(old, matcher) ? { ...old, operator: flipOperator(old.operator) } : old)));
  return (
    <div class="chips" role="group" aria-label="Quick filters">
      {matchers.map((matcher) => (
        <span class="chip chip-active" key={formatMatcher(matcher)}>
          <button type="button" class="chip-text" title="Select the opposite" onClick={() => flip(matcher)}>
            {matcher.label}
            <span class="chip-operator">{matcher.operator}</span>
            <bdi>{showUnsafe(matcher.value) || '""'}</bdi>
          </button>
          <button type="button" class="chip-close" aria-label={`Remove ${formatMatcher(matcher)}`} onClick={() => onMatchers(removeMatcher(matchers, matcher))}>
            <Icon name="close" />
          </button>
        </span>
      ))}
      {labels.map((label) => (
        <Popover class="chip" key={label} title={`Filter by ${label}`} button={<>{label}<Icon name="down" /></>}>
          {() => <ValueMenu label={label} matchers={matchers} readRange={readRange} onMatchers={onMatchers} />}
        </Popover>
      ))}
      {matchers.length > 1 && (
        <button type="button" class="link" onClick={() => onMatchers([])}>Clear all</button>
      )}
    </div>
  );
}

interface ValueMenuProps extends Pick<FilterChipsProps, "readRange" | "onMatchers"> {
  label: string;
  matchers: Matcher[];
}

function ValueMenu({ label, matchers, readRange, onMatchers }: ValueMenuProps): JSX.Element {
  // Without the label's own matchers, which would hide its other values.
  const query = formatSelector(matchers.filter((matcher) => matcher.label !== label));
  const { answer: values, failed } = useAnswer(createValues, { label, selection: { query, range: readRange() } }, [label, query]);

  if (failed) return <p class="muted values-note">Failed to load the values.</p>;
  if (!values) return <p class="muted values-note">…</p>;
  const totalNs = values.values.reduce((sum, { totalNs: ns }) => sum + ns, values.restNs);
  const add = (value: string, operator: "=" | "!="): void => onMatchers(addMatcher(matchers, { label, operator, value }));
  return (
    <ul class="values" aria-label={`Values of ${label}`}>
      {values.values.map(({ value, totalNs: ns }) => (
        <li key={value}>
          <button type="button" class="value" title={`Only ${label}="${showUnsafe(value)}"`} onClick={() => add(value, "=")}>
            <span class="value-bar" style={{ width: `${(100 * ns) / totalNs}%` }} />
            <bdi class="value-name">{showUnsafe(value) || <em>none</em>}</bdi>
            <span class="number">{formatDuration(ns)}</span>
            <span class="number value-share">{formatPercent(ns / totalNs)}</span>
          </button>
          <button type="button" class="value-not" title={`All but ${label}="${showUnsafe(value)}"`} aria-label={`All but ${showUnsafe(value)}`} onClick={() => add(value, "!=")}>not</button>
        </li>
      ))}
      {values.restCount > 0 && (
        <li class="muted values-note">{formatNumberOf(values.restCount, "more value")}, {formatDuration(values.restNs)}: type in the selector to find them</li>
      )}
      {values.values.length === 0 && <li class="muted values-note">No values in this selection.</li>}
    </ul>
  );
}
