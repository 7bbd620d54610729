// The flame graph: a fixed canvas in a scroller that is as high as the tree is deep, with keyboard
// control and texts for screen readers.
import type { JSX } from "preact";
import { useEffect, useLayoutEffect, useMemo, useState } from "preact/hooks";
import type { FunctionId } from "../api/routes.ts";
import { colourFrames, type FrameColours, type Theme } from "../lib/colour.ts";
import { formatCount, formatNumberOf, formatPercent } from "../lib/format.ts";
import { moveFocus, nextMatch } from "../lib/flame-focus.ts";
import { findLongestChain, foldRecursion, type RecursionChain, type FoldedTree } from "../lib/flame-fold.ts";
import { pathOf, resolvePath, type FlamePath, type ResolvedPath } from "../lib/flame-path.ts";
import { CUT_FRAME, type FlameTree } from "../lib/flame-tree.ts";
import { compileSearch, searchTree, type CompiledSearch, type Matches } from "../lib/search.ts";
import { describeNode, FlameCard } from "./flame-card.tsx";
import { FlameLegend } from "./flame-legend.tsx";
import { FlameMenu } from "./flame-menu.tsx";
import { ROW_HEIGHT_REM } from "./flame-painter.ts";
import { Breadcrumbs, FoldToggle, SearchField } from "./flame-toolbar.tsx";
import { locate, readRowHeight, revealRow, useFlameCanvas, usePointer, useWheel, type BoxAnchor, type CanvasRefs } from "./use-flame-canvas.ts";

export interface FlameGraphProps {
  tree: FlameTree;
  /** A path in the unfolded tree, even if recursion is folded. */
  zoom: FlamePath;
  fold: boolean;
  search: string;
  theme: Theme;
  /** A request for a cut subtree is running. */
  branchLoading: boolean;
  /** The last request for a cut subtree brought nothing new. */
  branchMissing: boolean;
  onZoom(path: FlamePath): void;
  onFold(fold: boolean): void;
  onSearch(search: string): void;
  onFilter(filter: string): void;
  onExpand(cutNode: number): void;
  onLines(of: FunctionId): void;
}

/** A click on narrow boxes scales the visible span by this factor. */
const NARROW_ZOOM = 1 / 8;

interface DerivedValues {
  /** The drawn tree: the original or the folded one. */
  tree: FlameTree;
  folded: FoldedTree | null;
  chain: RecursionChain | null;
  colours: FrameColours;
  compiled: CompiledSearch;
  matches: Matches | null;
  resolved: ResolvedPath;
}

const HELP =
  "Flame graph of CPU time. Arrow keys move, Enter zooms, Escape shows everything, n goes to the next match. The table of functions has the same numbers.";

export function FlameGraph(props: FlameGraphProps): JSX.Element {
  const { zoom, fold, search, theme, onZoom } = props;
  const [focused, setFocused] = useState(-1);
  const [hover, setHover] = useState<BoxAnchor | null>(null);
  const [menu, setMenu] = useState<BoxAnchor | null>(null);
  const [moved, setMoved] = useState(false);
  const [keyboard, setKeyboard] = useState(false);
  const refs = useFlameCanvas(() => setMoved(true));
  const { view, canvas } = refs;

  const { tree, folded, chain, colours, compiled, matches, resolved } = useDerivedValues(props);
  const originOf = (node: number): number => folded?.origin[node] ?? node;

  // Node numbers are only valid for one tree.
  useLayoutEffect(() => {
    setFocused(-1);
    [setHover, setMenu].forEach((clear) => clear(null));
  }, [tree]);
  const hovered = hover && !hover.narrow ? hover.node : -1;
  useLayoutEffect(() => {
    view.current?.setScene({ tree, theme, zoomed: resolved.node, colourOf: colours.colourOf, matches });
  }, [tree, theme, resolved, colours, matches]);
  const marked = keyboard ? focused : -1; // A click needs no mark: it zooms.
  useLayoutEffect(() => view.current?.setMarked({ hovered, focused: marked }), [tree, hovered, marked]);
  useEffect(() => {
    view.current?.showNode(resolved.node);
    setMoved(false);
    setHover(null);
    revealRow(refs, tree.depth[resolved.node]!);
  }, [resolved]);

  const zoomTo = (node: number): void => {
    if (tree.frame[node] === CUT_FRAME) return props.onExpand(originOf(node));
    if (node !== resolved.node || resolved.steps !== zoom.length) return onZoom(pathOf(props.tree, originOf(node)));
    showAgain(node);
  };
  const showAgain = (node: number): void => {
    view.current?.showNode(node);
    setMoved(false);
  };
  const reset = (): void => (zoom.length > 0 ? onZoom([]) : showAgain(0));
  const focusNode = (node: number): void => {
    setFocused(node);
    setKeyboard(true);
    setHover(null);
    revealRow(refs, tree.depth[node]!);
  };
  const stepMatch = (direction: 1 | -1): void => {
    if (matches && matches.nodes.length > 0) focusNode(nextMatch(matches.nodes, focused, direction));
  };
  const onKeyDown = (event: KeyboardEvent): void => {
    const node = focused >= 0 ? focused : resolved.node;
    const next = moveFocus(tree, node, event.key);
    if (next !== null) focusNode(focused < 0 ? resolved.node : next);
    else if (event.key === "Enter" || event.key === " ") zoomTo(node);
    else if (event.key === "Escape") reset();
    else if (event.key === "Backspace") zoomTo(Math.max(0, tree.parent[resolved.node]!));
    else if (event.key === "n" || event.key === "N") stepMatch(event.key === "n" ? 1 : -1);
    else if (event.key === "+" || event.key === "-") zoomAtNode(refs, node, event.key === "+" ? 0.7 : 1 / 0.7);
    else if (event.key === "ContextMenu" || (event.key === "F10" && event.shiftKey)) setMenu(anchorOf(refs, node));
    else return;
    event.preventDefault();
  };
  const closeMenu = (): void => {
    setMenu(null);
    canvas.current?.focus();
  };
  const pointer = usePointer(refs, {
    onHover: setHover,
    onClick(at) {
      setKeyboard(false);
      setFocused(at && !at.narrow ? at.node : -1);
      if (at?.narrow) view.current?.zoomAround(at.x - canvas.current!.getBoundingClientRect().left, NARROW_ZOOM);
      else if (at) zoomTo(at.node);
    },
  });
  useWheel(refs, () => setHover(null));
  const focusCard = keyboard && focused >= 0 && !hover && !menu ? anchorOf(refs, focused) : null;
  return (
    <section class="panel flame" aria-label="Flame graph">
      <header class="panel-head">
        <h2>Flame graph</h2>
        <SearchField search={search} error={compiled.error} matches={matches} tree={tree} onSearch={props.onSearch} onStep={stepMatch} />
        <span class="spacer" />
        {(moved || zoom.length > 0) && <button type="button" class="link" title="Escape" onClick={reset}>Reset zoom</button>}
        {props.branchMissing && <span class="warn" role="status">The rest does not fit into one answer: narrow the selection</span>}
        <FoldToggle fold={fold} chain={chain} onFold={props.onFold} />
        <BoxCount tree={tree} unfolded={props.tree} />
      </header>
      <Breadcrumbs zoom={zoom} fold={fold} found={resolved.steps} onZoom={onZoom} />
      <div class="flame-scroller" ref={refs.scroller} onScroll={(event) => view.current?.setScroll(event.currentTarget.scrollTop)}>
        <div class="flame-space" style={{ height: `${((tree.depthMax + 1) * ROW_HEIGHT_REM + 0.4).toFixed(1)}rem` }}>
          <div class="flame-marks" aria-hidden="true">
            <div class="flame-mark flame-mark-hover" ref={refs.hoverMark} hidden />
            <div class="flame-mark flame-mark-focus" ref={refs.focusMark} hidden />
          </div>
          <canvas
            ref={canvas}
            class="flame-canvas"
            tabIndex={0}
            role="application"
            aria-roledescription="flame graph"
            aria-label={HELP}
            aria-busy={props.branchLoading}
            {...pointer}
            onContextMenu={(event) => {
              event.preventDefault();
              setHover(null);
              setMenu(locate(refs, event));
            }}
            onKeyDown={onKeyDown}
            onFocus={() => focused < 0 && canvas.current!.matches(":focus-visible") && focusNode(resolved.node)}
            onBlur={() => setKeyboard(false)}
          />
        </div>
      </div>
      <FlameLegend colours={colours} theme={theme} />
      <p class="hidden" aria-live="polite">{keyboard && focused >= 0 ? describeNode(tree, focused) : ""}</p>
      {hover && !menu && <FlameCard tree={tree} {...hover} />}
      {focusCard && <FlameCard tree={tree} {...focusCard} />}
      {menu && <FlameMenu tree={tree} {...menu} onZoom={zoomTo} onSearch={props.onSearch} onFilter={props.onFilter} onLines={props.onLines} onClose={closeMenu} />}
    </section>
  );
}

/** Values derived from the tree, the search and the path, cached until one of them changes. */
function useDerivedValues({ tree: unfolded, fold, search, zoom }: FlameGraphProps): DerivedValues {
  const chain = useMemo(() => findLongestChain(unfolded), [unfolded]);
  const folded = useMemo(() => (fold ? foldRecursion(unfolded) : null), [unfolded, fold]);
  const tree = folded?.tree ?? unfolded;
  const colours = useMemo(() => colourFrames(tree), [tree]);
  const compiled = useMemo(() => compileSearch(search), [search]);
  const matches = useMemo(() => (compiled.test ? searchTree(tree, compiled.test) : null), [tree, compiled]);
  const resolved = useMemo(() => {
    const found = resolvePath(unfolded, zoom);
    return { ...found, node: folded?.image[found.node] ?? found.node };
  }, [unfolded, folded, zoom]);
  return { tree, folded, chain, colours, compiled, matches, resolved };
}

function zoomAtNode({ view }: CanvasRefs, node: number, factor: number): void {
  const box = view.current!.boxOf(node);
  view.current!.zoomAround(box.x + box.width / 2, factor);
}

/** The position of a box in the window, for the card or menu that the keyboard opens. */
function anchorOf({ canvas, view }: CanvasRefs, node: number): BoxAnchor {
  const bounds = canvas.current!.getBoundingClientRect();
  const box = view.current!.boxOf(node);
  const x = bounds.left + Math.max(0, Math.min(box.x + Math.min(40, box.width / 2), bounds.width - 40));
  return { node, x, y: bounds.top + box.y + readRowHeight(), narrow: false };
}

function BoxCount({ tree, unfolded }: { tree: FlameTree; unfolded: FlameTree }): JSX.Element {
  const cutNs = useMemo(() => {
    let sum = 0;
    for (const node of tree.cut.keys()) sum += tree.total[node] ?? 0;
    return sum;
  }, [tree]);
  const all = formatNumberOf(unfolded.length, "box", "boxes");
  const boxes = tree === unfolded ? all : `${formatCount(tree.length)} of ${all}`;
  if (cutNs === 0) return <span class="muted">{boxes}</span>;
  return (
    <span class="muted" title="The smallest subtrees are not drawn, but counted; click a hatched box to fetch it">
      {boxes} · {formatPercent(cutNs / tree.total[0]!)} hatched
    </span>
  );
}
