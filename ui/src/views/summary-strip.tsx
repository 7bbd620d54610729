// What the picture below is made of, and the same selection in other forms.
import type { JSX } from "preact";
import type { FlameGraph, Selection } from "../api/routes.ts";
import type { NodesAnswer, StacksAnswer, UnknownAnswer } from "../api/shapes.ts";
import { meanCores } from "../lib/chart-series.ts";
import { formatCores, formatCount, formatDuration, formatNumberOf, formatPercent } from "../lib/format.ts";
import { CopyCommand } from "./copy-command.tsx";
import { Icon } from "./icons.tsx";
import { Popover } from "./popover.tsx";
import { StacksPanel } from "./stacks-panel.tsx";
import { UnknownPanel } from "./unknown-panel.tsx";

export interface SummaryStripProps {
  selection: Selection;
  graph: FlameGraph;
  nodes: NodesAnswer;
  /** The time in which collectors reported, in milliseconds. */
  reportedMs: number;
  /** The whole command, quoted for a shell. */
  pprofCommand: string;
  svgUrl: string;
  foldedUrl: string;
  /** Asked when its panel is opened, and again when what is shown changes. */
  fetchStacks(signal: AbortSignal): Promise<StacksAnswer>;
  fetchUnknown(signal: AbortSignal): Promise<UnknownAnswer>;
  /** Highlights functions in the flame graph. */
  onSearch(search: string): void;
}

export function SummaryStrip({ selection, graph, nodes, reportedMs, pprofCommand, svgUrl, foldedUrl, fetchStacks, fetchUnknown, onSearch }: SummaryStripProps): JSX.Element {
  const cores = meanCores(graph.totalNs, reportedMs);
  return (
    <section class="summary" aria-label="What is shown">
      <dl>
        <div title={`${formatCount(graph.totalNs)} ns`}><dt>CPU time</dt><dd>{formatDuration(graph.totalNs)}</dd></div>
        <div title="CPU time divided by the time in which collectors reported"><dt>Mean</dt><dd>{cores === null ? "–" : formatCores(cores)} <small>cores</small></dd></div>
        <div><dt>Samples</dt><dd>{formatCount(graph.samples)}</dd></div>
        <div><dt>Nodes</dt><dd><Nodes nodes={nodes} /></dd></div>
        <div><dt>Complete stacks</dt><dd><Completeness selection={selection} graph={graph} fetchStacks={fetchStacks} onSearch={onSearch} /></dd></div>
        <div><dt>Named</dt><dd><Names selection={selection} graph={graph} fetchUnknown={fetchUnknown} onSearch={onSearch} /></dd></div>
      </dl>
      <nav class="exports" aria-label="The same selection elsewhere">
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
  return (
    <Popover title="Collectors in this range" button={<>{formatCount(count)}{missing > 0 && <span class="warn-dot" title={`${formatNumberOf(missing, "window")} missing`} />}</>}>
      {() => (
        <table class="facts">
          <thead><tr><th>node</th><th>windows</th><th>missing</th><th>sampled / busy</th></tr></thead>
          <tbody>
            {nodes.nodes.map((node) => (
              <tr key={node.node}>
                <td><bdi>{node.node}</bdi></td>
                <td class="number">{formatCount(node.windows)}</td>
                <td class="number">{formatCount(node.missing_windows)}</td>
                <td class="number">{node.busy_ns > 0 ? formatPercent(node.sampled_ns / node.busy_ns) : "–"}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </Popover>
  );
}

function Completeness({ selection, graph, fetchStacks, onSearch }: Pick<SummaryStripProps, "selection" | "graph" | "fetchStacks" | "onSearch">): JSX.Element {
  const share = graph.userNs === 0 ? NaN : graph.completeNs / graph.userNs;
  return (
    <Popover class="stacks-popover" title="Complete stacks, and why the others are not" button={<>{formatPercent(share)}<Icon name="down" /></>}>
      {(close) => (
        <StacksPanel
          selection={selection}
          fetchStacks={fetchStacks}
          onSearch={(search) => {
            onSearch(search);
            close();
          }}
        />
      )}
    </Popover>
  );
}

function Names({ selection, graph, fetchUnknown, onSearch }: Pick<SummaryStripProps, "selection" | "graph" | "fetchUnknown" | "onSearch">): JSX.Element {
  const share = graph.totalNs === 0 ? NaN : 1 - graph.unnamedNs / graph.totalNs;
  return (
    <Popover class="unknown-popover" title="Stacks in which every frame has a name, and why others have none" button={<>{formatPercent(share)}<Icon name="down" /></>}>
      {(close) => (
        <UnknownPanel
          selection={selection}
          fetchUnknown={fetchUnknown}
          onSearch={(search) => {
            onSearch(search);
            close();
          }}
        />
      )}
    </Popover>
  );
}
