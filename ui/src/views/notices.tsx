// Notices for an empty selection, an error, or an unreachable server.
import type { ComponentChildren, JSX } from "preact";
import { formatMatcher, type Matcher } from "../lib/selector.ts";
import { formatRange, type RangeMs, type RangeText, type TimeZone } from "../lib/time-range.ts";
import type { ApiErrorBody, NodeEntry } from "../api/shapes.ts";
import { describeStatus, listTroubles } from "./node-status.ts";
import { showUnsafe } from "../lib/text.ts";
import type { EmptyReason } from "../state/empty-reason.ts";
import { toRangeText } from "./time-picker.tsx";
import { UnreadTable } from "./unread-table.tsx";

/** The server does not answer; the page still shows the last profile. */
export function UnreachableBanner({ message, hasProfile, onRetry }: { message: string; hasProfile: boolean; onRetry(): void }): JSX.Element {
  return (
    <div class="banner banner-unreachable" role="alert">
      <span>
        <strong>{message.charAt(0).toUpperCase() + message.slice(1)}.</strong>{" "}
        {hasProfile ? "The page shows the last profile, and retries automatically." : "The page retries automatically."}
      </span>
      <button type="button" onClick={onRetry}>Try now</button>
    </div>
  );
}

/** The server answers queries and stores no windows, mostly because its disk is full. */
export function NotStoredBanner({ reason }: { reason: string }): JSX.Element {
  return (
    <div class="banner banner-refusal" role="alert">
      <span>
        <strong>The server stores no new profiles: <bdi>{showUnsafe(reason)}</bdi>.</strong> Stored profiles are shown as before. Collectors keep the
        profiles of some minutes, then they drop the oldest.
      </span>
    </div>
  );
}

/**
 * The server refused a parameter other than the selector: the selector field shows its own errors.
 */
export function RefusalBanner({ refusal, hasProfile }: { refusal: ApiErrorBody; hasProfile: boolean }): JSX.Element {
  return (
    <div class="banner banner-refusal" role="alert">
      <span>
        <strong>{refusal.parameter ? `${refusal.parameter}: ` : ""}{refusal.message}.</strong>
        {refusal.hint && ` ${refusal.hint}.`} {hasProfile && "The page still shows the previous profile."}
      </span>
    </div>
  );
}

export interface EmptyNoticeProps {
  emptyReason: EmptyReason;
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

/** The last 15 minutes that contain data. */
function lastQuarterHour(data: RangeMs): RangeText {
  return toRangeText({ fromMs: Math.max(data.fromMs, data.toMs - 890_000), toMs: data.toMs + 10_000 });
}

export function EmptyNotice({ emptyReason, zone, onRange, onRemove, onClear }: EmptyNoticeProps): JSX.Element {
  switch (emptyReason.kind) {
    case "store":
      return emptyReason.nodes.length > 0 ? <NoWindows nodes={emptyReason.nodes} /> : <EmptyStore />;
    case "range":
      return (
        <Notice title="No data in this range">
          <p>The data covers <strong>{formatRange(emptyReason.data, zone)}</strong>.</p>
          <p class="notice-actions"><button type="button" class="primary" onClick={() => onRange(lastQuarterHour(emptyReason.data))}>Show the last 15 minutes of data</button></p>
        </Notice>
      );
    case "matchers":
      return (
        <Notice title="Nothing matches">
          <p>{emptyReason.matchers.length === 1 ? "This matcher has" : "These matchers have"} no series in the range:</p>
          <ul class="notice-list">
            {emptyReason.matchers.map((matcher) => <li key={formatMatcher(matcher)}><code><bdi>{showUnsafe(formatMatcher(matcher))}</bdi></code></li>)}
          </ul>
          <p class="notice-actions"><button type="button" class="primary" onClick={() => onRemove(emptyReason.matchers)}>Remove {emptyReason.matchers.length === 1 ? "it" : "them"}</button></p>
        </Notice>
      );
    case "combination":
      return (
        <Notice title="Nothing matches">
          <p>Each matcher has series in this range, but no series matches all of them.</p>
          <p class="notice-actions"><button type="button" class="primary" onClick={onClear}>Select everything</button></p>
        </Notice>
      );
    case "unread":
      return (
        <Notice title="The profiles could not be read">
          <p>The server has profiles of this range and could not read them. Its log names them.</p>
          <UnreadTable incomplete={emptyReason.incomplete} zone={zone} />
        </Notice>
      );
    case "idle":
      return (
        <Notice title="No CPU time">
          <p>Collectors reported in this range, but the processors were idle. Idle time is not sampled.</p>
        </Notice>
      );
  }
}

/** Collectors run, and none of them has sent a window. */
function NoWindows({ nodes }: { nodes: NodeEntry[] }): JSX.Element {
  return (
    <Notice title="No profiles yet">
      <p>{nodes.length === 1 ? "One collector has" : "Collectors have"} reported, but none has sent a profile:</p>
      <ul class="notice-list">
        {nodes.map((node) => (
          <li key={node.node}>
            <strong><bdi>{showUnsafe(node.node)}</bdi></strong>: {describeStatus(node.status)}
            {listTroubles(node).map((line) => <p key={line}>{showUnsafe(line)}</p>)}
          </li>
        ))}
      </ul>
      <p class="muted">This page checks again automatically.</p>
    </Notice>
  );
}

function EmptyStore(): JSX.Element {
  return (
    <Notice title="No profiles yet">
      <p>The server runs, but has no profile yet. The first one arrives ten seconds after a collector starts.</p>
      <ol class="notice-steps">
        <li>
          On this machine, from the repository: <code>make run</code>
        </li>
        <li>
          On another node, as root: <code>pilotlight-collector --server http://THIS-SERVER:7071</code>, with the address that this server
          takes profiles on; <code>pilotlight-collector --help</code> lists the rest
        </li>
      </ol>
      <p class="muted">This page checks again automatically.</p>
    </Notice>
  );
}
