// The hover card: all details of one box.
import type { JSX } from "preact";
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { formatCount, formatDuration, formatNumberOf, formatPercent } from "../lib/format.ts";
import { levelSuffix, levelsOf } from "../lib/flame-fold.ts";
import { explainFrame, kindLabel } from "../lib/frame-kind.ts";
import { CUT_FRAME, nameOf, ROOT_FRAME, type FlameTree } from "../lib/flame-tree.ts";
import { describeReason, isBuildId } from "../lib/reasons.ts";
import { cutName, showUnsafe } from "../lib/text.ts";

export interface FlameCardProps {
  tree: FlameTree;
  node: number;
  /** The pointer's position in the window. */
  x: number;
  y: number;
  /** The box is narrower than a pixel and drawn together with its neighbours. */
  narrow: boolean;
}

const DISTANCE = 14;

export function FlameCard({ tree, node, x, y, narrow }: FlameCardProps): JSX.Element {
  const card = useRef<HTMLDivElement>(null);
  const [place, setPlace] = useState({ left: -9999, top: 0 });
  useLayoutEffect(() => {
    const { width, height } = card.current!.getBoundingClientRect();
    const left = x + DISTANCE + width > window.innerWidth ? Math.max(4, x - DISTANCE - width) : x + DISTANCE;
    const top = y + DISTANCE + height > window.innerHeight ? Math.max(4, y - DISTANCE - height) : y + DISTANCE;
    setPlace({ left, top });
  }, [x, y, node, tree]);
  return (
    <div class="card" ref={card} style={{ left: `${place.left}px`, top: `${place.top}px` }} aria-hidden="true">
      {narrow ? (
        <p class="muted">Many small functions, each narrower than a pixel. Click or Ctrl+wheel to zoom in.</p>
      ) : (
        <>
          <CardHead tree={tree} node={node} />
          <CardNumbers tree={tree} node={node} />
        </>
      )}
    </div>
  );
}

function CardHead({ tree, node }: { tree: FlameTree; node: number }): JSX.Element {
  const frame = tree.frame[node]!;
  if (frame === ROOT_FRAME) return <p class="card-name">All stacks of the selection</p>;
  if (frame === CUT_FRAME) {
    const count = tree.cut.get(node);
    return (
      <>
        <p class="card-name">{count === undefined ? "Smaller functions" : formatNumberOf(count, "smaller box", "smaller boxes")}</p>
        <p class="card-kind">Left out of this graph, but counted in all totals. Click to fetch and draw them.</p>
      </>
    );
  }
  const { frames } = tree;
  const { text, hidden } = cutName(frames.name[frame]!);
  const file = frames.file[frame]!;
  const line = frames.line[frame]!;
  const kind = frames.kind[frame]!;
  const unnamed = frames.unnamed.get(frame);
  return (
    <>
      <p class="card-name">
        <bdi>{text || "(no name)"}</bdi>{levelSuffix(tree, node)}
        {hidden > 0 && <span class="muted"> … {formatNumberOf(hidden, "more character")}; copying takes all</span>}
      </p>
      {frames.binary[frame] !== "" && <p class="card-place"><bdi>{showUnsafe(frames.binary[frame]!)}</bdi></p>}
      {file !== "" && <p class="card-place"><bdi>{showUnsafe(file)}</bdi>{line > 0 && `:${line}`}</p>}
      {unnamed && isBuildId(unnamed.buildId) && <p class="card-place">build id <bdi>{showUnsafe(unnamed.buildId)}</bdi></p>}
      <p class="card-kind"><strong>{kindLabel(kind, frames.binary[frame])}{unnamed && `: ${describeReason(unnamed.reason).label}`}.</strong> {explainFrame(kind, frames.name[frame]!, unnamed?.reason, frames.binary[frame])}</p>
      {levelsOf(tree, node) > 1 && <p class="card-kind"><strong>Folded.</strong> It calls itself, up to {formatCount(levelsOf(tree, node))} levels in a row; its times are those of all levels.</p>}
    </>
  );
}

function CardNumbers({ tree, node }: { tree: FlameTree; node: number }): JSX.Element {
  const whole = tree.total[0]!;
  const total = tree.total[node]!;
  const parent = tree.parent[node]!;
  const rows: [string, number][] = [["Total", total]];
  if (tree.frame[node] !== CUT_FRAME) rows.push(["Self", tree.self[node]!]);
  return (
    <table class="card-numbers">
      <tbody>
        {rows.map(([label, ns]) => (
          <tr key={label}><th>{label}</th><td>{formatDuration(ns)}</td><td>{formatPercent(ns / whole)}</td><td class="muted">of everything selected</td></tr>
        ))}
        {parent > 0 && <tr><th /><td /><td>{formatPercent(total / tree.total[parent]!)}</td><td class="muted">of its caller</td></tr>}
        <tr><th>Samples</th><td>{formatCount(tree.samples[node]!)}</td><td /><td /></tr>
      </tbody>
    </table>
  );
}

/** The card's content as one sentence, for screen readers. */
export function describeNode(tree: FlameTree, node: number): string {
  const frame = tree.frame[node]!;
  const share = formatPercent(tree.total[node]! / tree.total[0]!);
  const time = formatDuration(tree.total[node]!);
  if (frame === ROOT_FRAME) return `All stacks, ${time}`;
  if (frame === CUT_FRAME) return `${formatCount(tree.cut.get(node) ?? 0)} smaller functions, ${share}, ${time}. Enter fetches them.`;
  const self = formatPercent(tree.self[node]! / tree.total[0]!);
  const binary = tree.frames.binary[frame]!;
  const unnamed = tree.frames.unnamed.get(frame);
  const why = unnamed ? `, ${describeReason(unnamed.reason).label}` : "";
  const levels = levelsOf(tree, node);
  const folded = levels > 1 ? `, ${formatCount(levels)} levels folded` : "";
  return `${cutName(nameOf(tree, node)).text}${binary ? `, in ${showUnsafe(binary)}` : ""}, ${kindLabel(tree.frames.kind[frame]!, binary)}${why}, total ${share}, ${time}, self ${self}, level ${tree.depth[node]!}${folded}`;
}
