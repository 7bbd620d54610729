// The panel "Complete stacks": the share of complete stacks, the functions and reasons at which the
// others stop, and the results of the second unwinder.
import type { ComponentChildren, JSX } from "preact";
import { useState } from "preact/hooks";
import type { Selection } from "../api/routes.ts";
import type { IncompleteBinary, ListRest, OutcomeSum, StacksAnswer, IncompleteFunction } from "../api/shapes.ts";
import { formatCount, formatDuration, formatNumberOf, formatPercent } from "../lib/format.ts";
import { describeOutcome } from "../lib/outcomes.ts";
import { exactSearch } from "../lib/search.ts";
import { baseName, collapseBrackets, cutName, showUnsafe } from "../lib/text.ts";
import { createStacks } from "../state/panels.ts";
import { Icon } from "./icons.tsx";
import { Loading } from "./question-progress.tsx";
import { useAnswer } from "./use-answer.ts";

export interface StacksPanelProps {
  /** The selection of the shown profile; a new one sends a new request. */
  selection: Selection;
  onSearch(search: string): void;
}

export function StacksPanel({ selection, onSearch }: StacksPanelProps): JSX.Element {
  const { answer: stacks, failed, progress } = useAnswer(createStacks, selection);
  return (
    <div class="stacks" aria-busy={stacks === null && failed === null}>
      {failed && <p class="warn" role="alert">Not up to date: {failed}</p>}
      {stacks ? (
        <>
          <div class="stacks-column">
            <Completeness stacks={stacks} />
            <Outcomes stacks={stacks} />
          </div>
          <div class="stacks-column">
            {stacks.stops.count > 0 && <Stops stacks={stacks} onSearch={onSearch} />}
            <SelfCheck checks={stacks.checks} />
          </div>
        </>
      ) : (
        !failed && <Loading progress={progress} />
      )}
    </div>
  );
}

function Completeness({ stacks }: { stacks: StacksAnswer }): JSX.Element {
  const userNs = stacks.total_ns - stacks.kernel_only_ns;
  const userSamples = stacks.samples - stacks.kernel_only_samples;
  const completeSamples = stacks.complete_samples - stacks.kernel_only_samples;
  const share = (stacks.complete_ns - stacks.kernel_only_ns) / userNs;
  return (
    <header class="stacks-head">
      <p class="stacks-share">{formatPercent(share)}</p>
      <div>
        <p><strong>of the user stacks are complete</strong>, by CPU time.</p>
        <p class="muted">
          {formatCount(completeSamples)} of {formatNumberOf(userSamples, "sample")} with a user stack.
          {stacks.kernel_only_samples > 0 && ` ${formatCount(stacks.kernel_only_samples)} more are of kernel threads.`}
        </p>
      </div>
    </header>
  );
}

function Outcomes({ stacks }: { stacks: StacksAnswer }): JSX.Element {
  const userNs = stacks.total_ns - stacks.kernel_only_ns;
  const shown = stacks.outcomes.filter(({ outcome }) => outcome !== "kernel_only").sort((a, b) => Number(b.complete) - Number(a.complete));
  // By default, the most frequent reason is explained.
  const first = shown.find(({ complete }) => !complete)?.outcome ?? "";
  const [opened, setOpened] = useState<string | null>(null);
  const explained = opened ?? first;
  return (
    <section aria-label="Outcomes of stack walks">
      <div class="stacks-bar" aria-hidden="true">
        {shown.map((sum) => <span key={sum.outcome} class={barClass(sum)} style={{ flexGrow: sum.cpu_ns / userNs }} title={describeOutcome(sum.outcome).label} />)}
      </div>
      <ul class="outcomes">
        {shown.map((sum) => (
          <Outcome key={sum.outcome} sum={sum} share={sum.cpu_ns / userNs} open={explained === sum.outcome} onToggle={(open) => setOpened(open ? sum.outcome : "")} />
        ))}
      </ul>
      {stacks.stops.count > 0 && <p class="muted stacks-note">Incomplete stacks count with their full time; only the frames between the outermost known frame and the root are missing.</p>}
    </section>
  );
}

interface OutcomeProps {
  sum: OutcomeSum;
  share: number;
  open: boolean;
  onToggle(open: boolean): void;
}

function Outcome({ sum, share, open, onToggle }: OutcomeProps): JSX.Element {
  const { label, meaning, advice } = describeOutcome(sum.outcome);
  return (
    <li>
      <span class={`outcome-dot ${barClass(sum)}`} />
      <button type="button" class="outcome-label" aria-expanded={open} title={open ? undefined : meaning} onClick={() => onToggle(!open)}>
        {label}<Icon name={open ? "down" : "right"} />
      </button>
      <span class="number muted">{formatCount(sum.samples)}</span>
      <span class="number outcome-share">{formatPercent(share)}</span>
      {open && <p class="muted">{meaning} {advice && <span class="outcome-advice">{advice}</span>}</p>}
    </li>
  );
}

function barClass({ outcome, complete }: OutcomeSum): string {
  if (outcome === "complete") return "outcome-complete";
  return complete ? "outcome-other" : "outcome-torn";
}

type Grouping = "binaries" | "functions";

function Stops({ stacks, onSearch }: { stacks: StacksAnswer; onSearch(search: string): void }): JSX.Element {
  const [grouping, setGrouping] = useState<Grouping>("binaries");
  const { stops, by_binary: byBinary } = stacks;
  const count = grouping === "binaries" ? byBinary.count : stops.count;
  return (
    <section aria-labelledby="stops-title">
      <div class="stacks-title">
        <h2 id="stops-title">Where incomplete stacks stop</h2>
        <span class="muted">{formatCount(count)}</span>
        <span class="spacer" />
        <span class="segments" role="group" aria-label="List by">
          {(["binaries", "functions"] as const).map((choice) => (
            <button type="button" key={choice} aria-pressed={grouping === choice} onClick={() => setGrouping(choice)}>{choice === "binaries" ? "Binaries" : "Functions"}</button>
          ))}
        </span>
      </div>
      <div class="stops-scroller" tabIndex={0} role="region" aria-labelledby="stops-title">
        {grouping === "binaries" ? <BinaryTable rows={byBinary.binaries} rest={byBinary.rest} onSearch={onSearch} /> : <FunctionTable rows={stops.functions} rest={stops.rest} onSearch={onSearch} />}
      </div>
    </section>
  );
}

interface TableProps<Row> {
  rows: Row[];
  rest: ListRest | null;
  onSearch(search: string): void;
}

function BinaryTable({ rows, rest, onSearch }: TableProps<IncompleteBinary>): JSX.Element {
  return (
    <table class="stops">
      <thead><tr><th>Binary</th><th>Why</th><th class="number">Samples</th><th class="number" title="Share of the samples with a frame in this binary whose stack stops in it">Of its stacks</th></tr></thead>
      <tbody>
        {rows.map((row) => (
          <tr key={row.binary}>
            <td class="stops-name">
              {row.binary === "" ? <span class="muted">no file known</span> : (
                <Pick title={`${showUnsafe(row.binary)}\nHighlight it in the flame graph`} onPick={() => onSearch(row.binary)}>{showUnsafe(baseName(row.binary))}</Pick>
              )}
            </td>
            <td class="stops-why"><Reasons outcomes={row.outcomes} /></td>
            <td class="number">{formatCount(row.samples)}</td>
            <td class="number">{formatPercent(row.cpu_ns / row.through_ns)}</td>
          </tr>
        ))}
        <RestRow rest={rest} one="more binary" many="more binaries" columns={2} />
      </tbody>
    </table>
  );
}

function FunctionTable({ rows, rest, onSearch }: TableProps<IncompleteFunction>): JSX.Element {
  return (
    <table class="stops">
      <thead><tr><th>Outermost known function</th><th>Binary</th><th>Why</th><th class="number">Samples</th></tr></thead>
      <tbody>
        {rows.map((row) => (
          <tr key={JSON.stringify([row.binary, row.name, row.outcome])}>
            <td class="stops-name">
              {row.name === "" ? <span class="muted">no user frame known</span> : (
                <Pick title={`${cutName(row.name).text}\nHighlight it in the flame graph`} onPick={() => onSearch(exactSearch(row.name, row.binary))}>{cutName(collapseBrackets(cutName(row.name).text)).text}</Pick>
              )}
            </td>
            <td class="stops-file muted" title={showUnsafe(row.binary)}><bdi>{showUnsafe(baseName(row.binary))}</bdi></td>
            <td class="stops-why" title={describeOutcome(row.outcome).meaning}>{describeOutcome(row.outcome).label}</td>
            <td class="number">{formatCount(row.samples)}</td>
          </tr>
        ))}
        <RestRow rest={rest} one="more" many="more" columns={3} />
      </tbody>
    </table>
  );
}

function Pick({ title, onPick, children }: { title: string; onPick(): void; children: ComponentChildren }): JSX.Element {
  return <button type="button" class="link" title={title} onClick={onPick}><bdi>{children}</bdi></button>;
}

/** The label of the most frequent outcome and the number of others; the tooltip has all. */
function Reasons({ outcomes }: { outcomes: OutcomeSum[] }): JSX.Element {
  const title = outcomes.map(({ outcome, samples, cpu_ns: ns }) => `${describeOutcome(outcome).label}: ${formatNumberOf(samples, "sample")}, ${formatDuration(ns)}`).join("\n");
  const others = outcomes.length - 1;
  return <span title={title}>{describeOutcome(outcomes[0]?.outcome ?? "").label}{others > 0 && <span class="muted"> +{others}</span>}</span>;
}

function RestRow({ rest, one, many, columns }: { rest: ListRest | null; one: string; many: string; columns: number }): JSX.Element | null {
  if (!rest) return null;
  return <tr class="muted"><td colSpan={columns}>{formatNumberOf(rest.count, one, many)}</td><td class="number">{formatCount(rest.samples)}</td>{columns === 2 && <td />}</tr>;
}

function SelfCheck({ checks }: { checks: StacksAnswer["checks"] }): JSX.Element {
  const [open, setOpen] = useState(false);
  const compared = checks.agreed + checks.differed;
  return (
    <section aria-labelledby="check-title">
      <div class="stacks-title">
        <h2 id="check-title">Self-check</h2>
        <span class="spacer" />
        {compared > 0 && <button type="button" class="link" aria-expanded={open} onClick={() => setOpen(!open)}>{open ? "Hide programs" : "By program"}</button>}
      </div>
      {compared === 0 ? (
        <p class="muted">No stack of this selection was checked by the second, independent unwinder, which checks about one sample in 1,000. Choose a longer range or a wider selection.</p>
      ) : (
        <p>
          {formatNumberOf(compared, "stack was", "stacks were")} checked by a second, independent unwinder:{" "}
          <strong class={checks.differed > 0 ? undefined : "check-all"}>{formatPercent(checks.agreed / compared)}</strong> agree
          {checks.differed > 0 ? `, ${formatCount(checks.differed)} ${checks.differed === 1 ? "differs" : "differ"}.` : "."}
        </p>
      )}
      {open && compared > 0 && (
        <table class="stops">
          <thead><tr><th>Program</th><th class="number">Compared</th><th class="number">Differ</th><th class="number">Agree</th></tr></thead>
          <tbody>
            {checks.programs.map(({ exe, agreed, differed }) => (
              <tr key={exe}>
                <td class="stops-name" title={showUnsafe(exe)}><bdi>{showUnsafe(exe) || <span class="muted">no program known</span>}</bdi></td>
                <td class="number">{formatCount(agreed + differed)}</td>
                <td class="number">{formatCount(differed)}</td>
                <td class="number">{formatPercent(agreed / (agreed + differed))}</td>
              </tr>
            ))}
            {checks.rest && (
              <tr class="muted"><td>{formatNumberOf(checks.rest.count, "more program")}</td><td class="number">{formatCount(checks.rest.agreed + checks.rest.differed)}</td><td class="number">{formatCount(checks.rest.differed)}</td><td class="number">{formatPercent(checks.rest.agreed / (checks.rest.agreed + checks.rest.differed))}</td></tr>
            )}
          </tbody>
        </table>
      )}
    </section>
  );
}
