// What the page says when there is nothing to draw, or no answer.
import type { ComponentChildren, JSX } from "preact";
import { formatMatcher, type Matcher } from "../lib/selector.ts";
import { formatRange, type RangeMs, type RangeText, type TimeZone } from "../lib/time-range.ts";
import type { ApiErrorBody } from "../api/shapes.ts";
import { showUnsafe } from "../lib/text.ts";
import type { Emptiness } from "../state/emptiness.ts";
import { toRangeText } from "./time-picker.tsx";

/** The server does not answer; what is on the page is the last picture. */
export function AwayBanner({ message, hasPicture, onRetry }: { message: string; hasPicture: boolean; onRetry(): void }): JSX.Element {
  return (
    <div class="banner banner-away" role="alert">
      <span>
        <strong>{message.charAt(0).toUpperCase() + message.slice(1)}.</strong>{" "}
        {hasPicture ? "What you see is the last picture; it is asked for again by itself." : "It is asked again by itself."}
      </span>
      <button type="button" onClick={onRetry}>Try now</button>
    </div>
  );
}

/** The server found the question wrong, and not in the selector, which says so itself. */
export function RefusalBanner({ refusal, hasPicture }: { refusal: ApiErrorBody; hasPicture: boolean }): JSX.Element {
  return (
    <div class="banner banner-refusal" role="alert">
      <span>
        <strong>{refusal.parameter ? `${refusal.parameter}: ` : ""}{refusal.message}.</strong>
        {refusal.hint && ` ${refusal.hint}.`} {hasPicture && "The picture below is the one before."}
      </span>
    </div>
  );
}

export interface EmptyNoticeProps {
  emptiness: Emptiness;
  zone: TimeZone;
  onRange(range: RangeText): void;
  onRemove(matchers: Matcher[]): void;
  onClear(): void;
}

function Notice({ title, children }: { title: string; children: ComponentChildren }): JSX.Element {
  return (
    <section class="notice panel" role="status">
      <h2>{title}</h2>
      {children}
    </section>
  );
}

/** Fifteen minutes up to the last window that is there. */
function lastQuarter(data: RangeMs): RangeText {
  return toRangeText({ fromMs: Math.max(data.fromMs, data.toMs - 890_000), toMs: data.toMs + 10_000 });
}

export function EmptyNotice({ emptiness, zone, onRange, onRemove, onClear }: EmptyNoticeProps): JSX.Element {
  switch (emptiness.kind) {
    case "store":
      return <EmptyStore />;
    case "range":
      return (
        <Notice title="Nothing was collected in this range">
          <p>There is data from <strong>{formatRange(emptiness.data, zone)}</strong>.</p>
          <p class="notice-actions"><button type="button" class="primary" onClick={() => onRange(lastQuarter(emptiness.data))}>Show the last 15 minutes of it</button></p>
        </Notice>
      );
    case "matchers":
      return (
        <Notice title="Nothing is selected">
          <p>{emptiness.matchers.length === 1 ? "This matcher has" : "These matchers have"} no series in the range:</p>
          <ul class="notice-list">
            {emptiness.matchers.map((matcher) => <li key={formatMatcher(matcher)}><code><bdi>{showUnsafe(formatMatcher(matcher))}</bdi></code></li>)}
          </ul>
          <p class="notice-actions"><button type="button" class="primary" onClick={() => onRemove(emptiness.matchers)}>Remove {emptiness.matchers.length === 1 ? "it" : "them"}</button></p>
        </Notice>
      );
    case "combination":
      return (
        <Notice title="Nothing is selected">
          <p>Each matcher has series in this range, but no series fits all of them.</p>
          <p class="notice-actions"><button type="button" class="primary" onClick={onClear}>Select everything</button></p>
        </Notice>
      );
    case "idle":
      return (
        <Notice title="Nothing ran">
          <p>Collectors reported in this range, and no CPU time was used. Idle time is not sampled.</p>
        </Notice>
      );
  }
}

function EmptyStore(): JSX.Element {
  return (
    <Notice title="No profiles yet">
      <p>The server runs, and no collector has sent anything. The first window arrives ten seconds after a collector starts.</p>
      <ol class="notice-steps">
        <li>
          On this machine, from the repository: <code>make run</code>
        </li>
        <li>
          On another node, as root: <code>pilotlight-collector --server http://THIS-SERVER:7071</code>, with the address that this server
          takes profiles on; <code>pilotlight-collector --help</code> lists the rest
        </li>
      </ol>
      <p class="muted">This page looks again by itself.</p>
    </Notice>
  );
}
