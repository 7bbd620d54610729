// Key figures of the profile, and links to the same selection in other formats.
import { Fragment, type JSX } from "preact";
import type { FlameGraph, Selection } from "../api/routes.ts";
import type { NodesAnswer } from "../api/shapes.ts";
import { meanCores } from "../lib/chart-series.ts";
import { describeStatus, listTroubles, needsAttention } from "./node-status.ts";
import { showUnsafe } from "../lib/text.ts";
import type { TimeZone } from "../lib/time-range.ts";
import { formatCores, formatCount, formatDuration, formatNumberOf, formatPercent } from "../lib/format.ts";
import { CopyCommand } from "./copy-command.tsx";
import { collectExcluded, type ExcludedPods } from "./excluded-pods.ts";
import { Icon } from "./icons.tsx";
import { Popover } from "./popover.tsx";
import { StacksPanel } from "./stacks-panel.tsx";
import { UnknownPanel } from "./unknown-panel.tsx";
import { UnreadTable } from "./unread-table.tsx";

export interface SummaryStripProps {
  selection: Selection;
  graph: FlameGraph;
  nodes: NodesAnswer;
  zone: TimeZone;
  /** The duration that collectors reported, in milliseconds. */
  reportedMs: number;
  /** The command, quoted for a shell. */
  pprofCommand: string;
  svgUrl: string;
  foldedUrl: string;
  /** Searches for functions in the flame graph. */
  onSearch(search: string): void;
}

export function SummaryStrip({ selection, graph, nodes, zone, reportedMs, pprofCommand, svgUrl, foldedUrl, onSearch }: SummaryStripProps): JSX.Element {
  const cores = meanCores(graph.totalNs, reportedMs);
  const excluded = collectExcluded(nodes);
  return (
    <section class="summary" aria-label="Summary">
      <dl>
        <div title={`${formatCount(graph.totalNs)} ns`}><dt>CPU time</dt><dd>{formatDuration(graph.totalNs)}</dd></div>
        <div title="CPU time divided by the duration that collectors reported"><dt>Mean</dt><dd>{cores === null ? "–" : formatCores(cores)} <small>cores</small></dd></div>
        <div><dt>Samples</dt><dd>{formatCount(graph.samples)}</dd></div>
        <div><dt>Nodes</dt><dd><Nodes nodes={nodes} /></dd></div>
        {graph.incomplete.length > 0 && <div><dt>Not read</dt><dd><Unread graph={graph} zone={zone} /></dd></div>}
        {graph.lacksAddresses && <div title="Addresses of frames with function and line were dropped of rolled-up windows"><dt>Addresses</dt><dd>dropped</dd></div>}
        {excluded.count > 0 && <div><dt>Not profiled</dt><dd><Excluded excluded={excluded} /></dd></div>}
        <div><dt>Complete stacks</dt><dd><Completeness selection={selection} graph={graph} onSearch={onSearch} /></dd></div>
        <div><dt>Named</dt><dd><Names selection={selection} graph={graph} onSearch={onSearch} /></dd></div>
      </dl>
      <nav class="exports" aria-label="Export this selection">
        <Popover align="end" title="Open in go tool pprof" button="pprof">
          {() => <CopyCommand command={pprofCommand} />}
        </Popover>
        <a href={svgUrl} target="_blank" rel="noreferrer">SVG</a>
        <a href={foldedUrl} target="_blank" rel="noreferrer">folded</a>
      </nav>
    </section>
  );
}

function Nodes({ nodes }: { nodes: NodesAnswer }): JSX.Element {
  const count = nodes.nodes.length;
  if (count === 0) return <>0</>;
  const missing = nodes.nodes.reduce((sum, node) => sum + node.missing_windows, 0);
  const troubled = nodes.nodes.filter(needsAttention).length;
  const warnings = [missing > 0 && `${formatNumberOf(missing, "window")} missing`, troubled > 0 && `${formatNumberOf(troubled, "node")} with a problem`].filter(Boolean);
  return (
    <Popover title="Collectors in this range" button={<>{formatCount(count)}{warnings.length > 0 && <span class="warn-dot" title={warnings.join(", ")} />}</>}>
      {() => (
        <table class="facts">
          <thead><tr><th>node</th><th>now</th><th>windows</th><th>missing</th><th>sampled / busy</th></tr></thead>
          <tbody>
            {nodes.nodes.map((node) => (
              <Fragment key={node.node}>
                <tr>
                  <td><bdi>{node.node}</bdi></td>
                  <td>{describeStatus(node.status)}</td>
                  <td class="number">{formatCount(node.windows)}</td>
                  <td class="number">{formatCount(node.missing_windows)}</td>
                  <td class="number">{node.busy_ns > 0 ? formatPercent(node.sampled_ns / node.busy_ns) : "–"}</td>
                </tr>
                {listTroubles(node).map((line) => <tr key={line}><td colSpan={5} class="muted trouble">{showUnsafe(line)}</td></tr>)}
              </Fragment>
            ))}
          </tbody>
        </table>
      )}
    </Popover>
  );
}

/** Windows whose samples are missing from the graph. */
function Unread({ graph: { incomplete }, zone }: Pick<SummaryStripProps, "graph" | "zone">): JSX.Element {
  const windows = incomplete.reduce((sum, unread) => sum + unread.windows, 0);
  return (
    <Popover class="unread-popover" title="Windows that the server could not read: the profile lacks their samples" button={<>{formatNumberOf(windows, "window")}<span class="warn-dot" /></>}>
      {() => <UnreadTable incomplete={incomplete} zone={zone} />}
    </Popover>
  );
}

function Excluded({ excluded }: { excluded: ExcludedPods }): JSX.Element {
  return (
    <Popover class="excluded-popover" title="Pods that a policy excludes now, and the rule that says so" button={<>{formatNumberOf(excluded.count, "pod")}<Icon name="down" /></>}>
      {() => (
        <table class="facts">
          <thead><tr><th>pod</th><th>node</th></tr></thead>
          {excluded.rules.map(({ rule, pods }) => (
            <tbody key={rule}>
              <tr><th colSpan={2} scope="rowgroup" class="trouble">{showUnsafe(rule)}</th></tr>
              {pods.map(({ node, name }) => <tr key={`${node} ${name}`}><td><bdi>{showUnsafe(name)}</bdi></td><td><bdi>{showUnsafe(node)}</bdi></td></tr>)}
            </tbody>
          ))}
          {excluded.unlisted > 0 && <tfoot><tr><td colSpan={2} class="muted">and {formatNumberOf(excluded.unlisted, "pod")} more</td></tr></tfoot>}
        </table>
      )}
    </Popover>
  );
}

function Completeness({ selection, graph, onSearch }: Pick<SummaryStripProps, "selection" | "graph" | "onSearch">): JSX.Element {
  const share = graph.userNs === 0 ? NaN : graph.completeNs / graph.userNs;
  return (
    <Popover class="stacks-popover" title="Share of complete stacks, and reasons for incomplete ones" button={<>{formatPercent(share)}<Icon name="down" /></>}>
      {(close) => (
        <StacksPanel
          selection={selection}
          onSearch={(search) => {
            onSearch(search);
            close();
          }}
        />
      )}
    </Popover>
  );
}

function Names({ selection, graph, onSearch }: Pick<SummaryStripProps, "selection" | "graph" | "onSearch">): JSX.Element {
  const share = graph.totalNs === 0 ? NaN : 1 - graph.unnamedNs / graph.totalNs;
  return (
    <Popover class="unknown-popover" title="Share of stacks in which every frame has a name, and reasons for unnamed frames" button={<>{formatPercent(share)}<Icon name="down" /></>}>
      {(close) => (
        <UnknownPanel
          selection={selection}
          onSearch={(search) => {
            onSearch(search);
            close();
          }}
        />
      )}
    </Popover>
  );
}
