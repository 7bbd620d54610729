// The CPU time of containers and systemd units: by the kernel's account and sampled, and the time in
// which they were throttled.
import type { ComponentChildren, JSX } from "preact";
import type { Selection } from "../api/routes.ts";
import type { ContainerEntry, ContainersAnswer, ContainerSums } from "../api/shapes.ts";
import { compareRatio, listMatchers, nameContainer, splitMatchers } from "../lib/containers.ts";
import { formatCount, formatDuration, formatNumberOf, formatPercent } from "../lib/format.ts";
import { formatMatcher, type Matcher } from "../lib/selector.ts";
import { showUnsafe } from "../lib/text.ts";
import { formatRange, type TimeZone } from "../lib/time-range.ts";
import type { ContainerSort } from "../lib/url-state.ts";
import { createContainers } from "../state/panels.ts";
import { Icon } from "./icons.tsx";
import { Loading } from "./question-progress.tsx";
import { useAnswer } from "./use-answer.ts";

export interface ContainerTableProps {
  selection: Selection;
  matchers: Matcher[];
  zone: TimeZone;
  sort: ContainerSort;
  onSort(sort: ContainerSort): void;
  /** Selects one container or unit. */
  onPick(matchers: Matcher[]): void;
}

const COLUMNS: { sort: ContainerSort; label: string; title: string }[] = [
  { sort: "kernel", label: "CPU time", title: "CPU time by the kernel's account of the cgroup" },
  { sort: "throttled", label: "Throttled", title: "Time in which the CPU limit stopped the container although it had work" },
  { sort: "sampled", label: "Sampled", title: "CPU time of the samples: this is what the graph shows" },
  { sort: "ratio", label: "Ratio", title: "Sampled CPU time divided by the kernel's. ± is one standard deviation: samples are random, and n of them have a relative one of 1/√n" },
  { sort: "excluded", label: "Excluded", title: "Samples that are not in the profile because the pod is not to be profiled" },
];

export function ContainerTable(props: ContainerTableProps): JSX.Element {
  const { selection, matchers, zone, sort } = props;
  const { answer, failed, progress } = useAnswer(createContainers, { selection, sort }, [selection, sort]);
  const { ofProcesses } = splitMatchers(matchers);
  return (
    <section class="panel containers" aria-label="Containers" aria-busy={answer === null && failed === null}>
      <header class="panel-head">
        <h2>Containers and units</h2>
        {answer && <span class="muted">{formatCount(answer.count)}</span>}
        <span class="muted">{formatRange(selection.range, zone)}</span>
        {failed && <span class="warn" role="alert">not up to date: {failed}</span>}
      </header>
      {ofProcesses.length > 0 && (
        <p class="containers-note muted">
          The kernel's accounts are of whole containers: <code><bdi>{showUnsafe(ofProcesses.map(formatMatcher).join(", "))}</bdi></code> does not apply here.
        </p>
      )}
      {answer && answer.count > 0 && <Stolen answer={answer} />}
      {answer && (answer.count > 0 ? <Rows {...props} answer={answer} /> : <NoAccounts />)}
      {!answer && !failed && <div class="containers-note"><Loading progress={progress} /></div>}
    </section>
  );
}

function NoAccounts(): JSX.Element {
  return (
    <div class="containers-note">
      <p><strong>No container and no systemd unit has a CPU account in this selection.</strong></p>
      <p class="muted">
        A collector sends the kernel's account of each. It sends none if the controller <code>cpuacct</code> is not mounted (its log says so), if it
        does not see the host's cgroups (see <em>Nodes</em>), or if it is of an older version.
      </p>
    </div>
  );
}

/** Names stolen time where more was sampled than the kernel has in its accounts. */
function Stolen({ answer }: { answer: ContainersAnswer }): JSX.Element | null {
  const isMore = [answer.total, ...answer.containers].some((sums) => compareRatio(sums) === "more");
  if (answer.stolen_ns === 0 || !isMore) return null;
  return (
    <p class="containers-note warn">
      The hypervisor took {formatDuration(answer.stolen_ns)} from these nodes. The kernel does not count that time, but a sampling timer that expires in it
      fires after it: this explains a ratio above 100 %.
    </p>
  );
}

function Rows({ answer, sort, onSort, onPick }: ContainerTableProps & { answer: ContainersAnswer }): JSX.Element {
  const { containers, rest, total } = answer;
  // On one node the column would have one value.
  const hasNodes = new Set(containers.map(({ labels }) => labels["node"])).size > 1;
  const hasPods = containers.some(({ labels }) => "pod" in labels);
  const names = 1 + (hasPods ? 2 : 0) + (hasNodes ? 1 : 0);
  const maxNs = Math.max(1, ...containers.map(({ kernel_ns: ns }) => ns));
  return (
    <div class="containers-scroller" tabIndex={0} role="region" aria-label="CPU time of containers and units">
      <table class="accounts">
        <thead>
          <tr>
            {hasPods && <><th scope="col">Namespace</th><th scope="col">Pod</th></>}
            <th scope="col">{hasPods ? "Container or unit" : "Unit or container"}</th>
            {hasNodes && <th scope="col">Node</th>}
            {COLUMNS.map((column) => (
              <th key={column.sort} scope="col" class="number" aria-sort={column.sort === sort ? "descending" : "none"}>
                <button type="button" class={column.sort === sort ? "sort sort-on" : "sort"} title={column.title} onClick={() => onSort(column.sort)}>
                  {column.label}
                  {column.sort === sort && <Icon name="down" />}
                </button>
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          <tr class="accounts-total">
            <th scope="row" colSpan={names}>All {formatCount(answer.count)}</th>
            <Sums sums={total} />
          </tr>
          {containers.map((entry) => (
            <Row key={JSON.stringify(entry.labels)} entry={entry} maxNs={maxNs} hasPods={hasPods} hasNodes={hasNodes} onPick={onPick} />
          ))}
          {rest && (
            <tr class="muted">
              <th scope="row" colSpan={names}>{formatNumberOf(answer.count - containers.length, "more")}: select fewer to see them</th>
              <Sums sums={rest} />
            </tr>
          )}
        </tbody>
      </table>
    </div>
  );
}

interface RowProps {
  entry: ContainerEntry;
  maxNs: number;
  hasPods: boolean;
  hasNodes: boolean;
  onPick(matchers: Matcher[]): void;
}

function Row({ entry, maxNs, hasPods, hasNodes, onPick }: RowProps): JSX.Element {
  const { labels } = entry;
  const text = (label: string): string => showUnsafe(labels[label] ?? "") || "–";
  const name = showUnsafe(nameContainer(labels));
  const title = Object.entries(labels).map(([label, value]) => `${label}: ${showUnsafe(value)}`).join("\n");
  // Without samples the selection would be empty.
  const pick = entry.samples > 0 ? () => onPick(listMatchers(labels)) : undefined;
  const shown: ComponentChildren = <bdi>{name || ("pod" in labels ? "the pod's sandbox" : "–")}</bdi>;
  return (
    <tr class={pick && "accounts-row"} title={title} onClick={pick}>
      {hasPods && <><td><bdi>{text("namespace")}</bdi></td><td class="accounts-pod"><bdi>{text("pod")}</bdi></td></>}
      <th scope="row" class="accounts-name">
        {/* The row's own handler takes the click; the button is for the keyboard. */}
        {pick ? <button type="button" class="link" title={title}>{shown}</button> : shown}
      </th>
      {hasNodes && <td><bdi>{text("node")}</bdi></td>}
      <Sums sums={entry} share={entry.kernel_ns / maxNs} />
    </tr>
  );
}

/** The cells of the columns, in their order. */
function Sums({ sums, share }: { sums: ContainerSums; share?: number }): JSX.Element {
  const { kernel_ns: kernelNs, throttled_ns: throttledNs, sampled_ns: sampledNs, excluded_samples: excluded } = sums;
  return (
    <>
      <td class="number accounts-cpu">
        {share !== undefined && <span class="accounts-bar" style={{ "--share": share }} />}
        {formatDuration(kernelNs)}
      </td>
      <td class={throttledNs > 0 ? "number accounts-throttled" : "number muted"}>{throttledNs > 0 ? formatDuration(throttledNs) : "–"}</td>
      <td class="number" title={sampledTitle(sums)}>{formatDuration(sampledNs)}</td>
      <td class="number"><RatioText sums={sums} /></td>
      <td class={excluded > 0 ? "number" : "number muted"}>{excluded > 0 ? formatCount(excluded) : "–"}</td>
    </>
  );
}

function sampledTitle({ samples, unread_ns: unreadNs }: ContainerSums): string {
  const unread = unreadNs > 0 ? `, ${formatDuration(unreadNs)} of them after the last reading of the account, since the cgroup ended` : "";
  return formatNumberOf(samples, "sample") + unread;
}

function RatioText({ sums }: { sums: ContainerSums }): JSX.Element {
  const { ratio, ratio_deviation: deviation } = sums;
  if (ratio === null || deviation === null) return <span class="muted" title="No samples, or no CPU time">–</span>;
  const compared = compareRatio(sums);
  const title = compared === "equal" ? "Equal, but for chance" : `${compared === "more" ? "More" : "Less"} was sampled than the kernel's account has, by more than chance`;
  return (
    <span class={compared === "equal" ? undefined : "warn"} title={title}>
      {formatPercent(ratio)} <span class="muted">± {formatPercent(deviation)}</span>
    </span>
  );
}
