// The panel "Named": binaries with unnamed frames, the reasons, and the remedies.
import type { JSX } from "preact";
import { Fragment } from "preact";
import { useState } from "preact/hooks";
import type { Selection } from "../api/routes.ts";
import type { UnknownAnswer, UnnamedBinary, UnnamedReason } from "../api/shapes.ts";
import { formatCount, formatDuration, formatNumberOf, formatPercent } from "../lib/format.ts";
import { describeReason, isBuildId } from "../lib/reasons.ts";
import { baseName, showUnsafe } from "../lib/text.ts";
import { createUnknown } from "../state/panels.ts";
import { CopyText } from "./copy-command.tsx";
import { Icon } from "./icons.tsx";
import { Loading } from "./question-progress.tsx";
import { useAnswer } from "./use-answer.ts";

export interface UnknownPanelProps {
  /** The selection of the shown profile; a new one sends a new request. */
  selection: Selection;
  onSearch(search: string): void;
}

export function UnknownPanel({ selection, onSearch }: UnknownPanelProps): JSX.Element {
  const { answer: unknown, failed, progress } = useAnswer(createUnknown, selection);
  return (
    <div class="stacks unknown" aria-busy={unknown === null && failed === null}>
      {failed && <p class="warn" role="alert">Not up to date: {failed}</p>}
      {unknown ? (
        <>
          <div class="stacks-column">
            <Share unknown={unknown} />
            {unknown.reasons.length > 0 && <ReasonList unknown={unknown} />}
          </div>
          {unknown.by_binary.count > 0 && <div class="stacks-column"><Binaries unknown={unknown} onSearch={onSearch} /></div>}
        </>
      ) : (
        !failed && <Loading progress={progress} />
      )}
    </div>
  );
}

function Share({ unknown }: { unknown: UnknownAnswer }): JSX.Element {
  const share = unknown.unnamed_ns / unknown.total_ns;
  const own = unknown.unnamed_self_ns / unknown.total_ns;
  return (
    <header class="stacks-head">
      <p class="stacks-share">{formatPercent(share)}</p>
      {unknown.unnamed_ns === 0 ? (
        <div>
          <p><strong>of the CPU time has a frame without a name.</strong></p>
          <p class="muted">Every frame of {formatNumberOf(unknown.samples, "sample")} is named.</p>
        </div>
      ) : (
        <div>
          <p><strong>of the CPU time has a frame without a name.</strong></p>
          <p class="muted">
            {formatCount(unknown.unnamed_samples)} of {formatNumberOf(unknown.samples, "sample")}. In {formatPercent(own)} of the CPU time the innermost frame has no name.
          </p>
        </div>
      )}
    </header>
  );
}

function ReasonList({ unknown }: { unknown: UnknownAnswer }): JSX.Element {
  const first = unknown.reasons[0]?.reason ?? "";
  // By default, the most frequent reason is explained.
  const [opened, setOpened] = useState<string | null>(null);
  const explained = opened ?? first;
  return (
    <section aria-label="Reasons">
      <ul class="outcomes">
        {unknown.reasons.map((sum) => {
          const open = explained === sum.reason;
          return (
            <li key={sum.reason}>
              <span class="outcome-dot outcome-torn" />
              <button type="button" class="outcome-label" aria-expanded={open} title={open ? undefined : sum.words} onClick={() => setOpened(open ? "" : sum.reason)}>
                {describeReason(sum.reason).label}<Icon name={open ? "down" : "right"} />
              </button>
              <span class="number muted">{formatCount(sum.unnamed_samples)}</span>
              <span class="number outcome-share">{formatPercent(sum.unnamed_ns / unknown.total_ns)}</span>
              {open && <p class="muted">{toSentence(sum.words)}</p>}
            </li>
          );
        })}
      </ul>
      <p class="muted stacks-note">These frames count with their full time. Names that are found later also appear in stored profiles.</p>
    </section>
  );
}

function Binaries({ unknown, onSearch }: { unknown: UnknownAnswer; onSearch(search: string): void }): JSX.Element {
  const { count, binaries, rest } = unknown.by_binary;
  const [opened, setOpened] = useState<string | null>(null);
  const explained = opened ?? keyOf(binaries[0]);
  return (
    <section aria-labelledby="unknown-title">
      <div class="stacks-title">
        <h2 id="unknown-title">Binaries and remedies</h2>
        <span class="muted">{formatCount(count)}</span>
      </div>
      <div class="stops-scroller" tabIndex={0} role="region" aria-labelledby="unknown-title">
        <table class="stops">
          <thead>
            <tr>
              <th>Binary</th><th>Why</th><th class="number" title="Share of the selection in which the innermost frame is one of these">Innermost</th>
              <th class="number" title="Share of the selection that has one of these frames anywhere in the stack">Anywhere</th>
            </tr>
          </thead>
          <tbody>
            {binaries.map((row) => {
              const key = keyOf(row);
              const open = explained === key;
              return (
                <Fragment key={key}>
                  <tr>
                    <td class="stops-name">
                      <button type="button" class="outcome-label" aria-expanded={open} title={showUnsafe(row.binary)} onClick={() => setOpened(open ? "" : key)}>
                        <bdi>{row.binary === "" ? "no file" : showUnsafe(baseName(row.binary))}</bdi><Icon name={open ? "down" : "right"} />
                      </button>
                    </td>
                    <td class="stops-why"><Reasons reasons={row.reasons} /></td>
                    <td class="number">{formatPercent(row.unnamed_self_ns / unknown.total_ns)}</td>
                    <td class="number">{formatPercent(row.unnamed_ns / unknown.total_ns)}</td>
                  </tr>
                  {open && <tr class="unknown-open"><td colSpan={4}><Advice row={row} onSearch={onSearch} /></td></tr>}
                </Fragment>
              );
            })}
            {rest && (
              <tr class="muted">
                <td colSpan={2}>{formatNumberOf(rest.count, "more binary", "more binaries")}</td>
                <td class="number">{formatPercent(rest.unnamed_self_ns / unknown.total_ns)}</td>
                <td class="number">{formatPercent(rest.unnamed_ns / unknown.total_ns)}</td>
              </tr>
            )}
          </tbody>
        </table>
      </div>
    </section>
  );
}

function keyOf(row: UnnamedBinary | undefined): string {
  return row ? JSON.stringify([row.binary, row.build_id]) : "";
}

/** The label of the most frequent reason and the number of others; the tooltip has all. */
function Reasons({ reasons }: { reasons: UnnamedReason[] }): JSX.Element {
  const title = reasons.map(({ reason, unnamed_samples: samples, unnamed_ns: ns }) => `${describeReason(reason).label}: ${formatNumberOf(samples, "sample")}, ${formatDuration(ns)}`).join("\n");
  const others = reasons.length - 1;
  return <span title={title}>{describeReason(reasons[0]?.reason ?? "").label}{others > 0 && <span class="muted"> +{others}</span>}</span>;
}

function Advice({ row, onSearch }: { row: UnnamedBinary; onSearch(search: string): void }): JSX.Element {
  return (
    <div class="unknown-advice">
      {row.binary !== "" && (
        <p class="unknown-path"><bdi>{showUnsafe(row.binary)}</bdi> <button type="button" class="link" onClick={() => onSearch(row.binary)}>Highlight</button></p>
      )}
      {isBuildId(row.build_id) && <p>build id <CopyText text={row.build_id} label="build id" /></p>}
      {row.reasons.map(({ reason, words, advice }) => (
        <p key={reason}><span class="muted">{toSentence(words)}</span> {advice && toSentence(advice)}</p>
      ))}
    </div>
  );
}

function toSentence(words: string): string {
  const text = showUnsafe(words);
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
}
