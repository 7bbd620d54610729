// The whole page: stores in, props down.
import type { JSX } from "preact";
import { useEffect, useMemo, useState } from "preact/hooks";
import { fetchLines, fetchStacks, fetchUnknown, linkTo, type FunctionId } from "../api/routes.ts";
import { readServerClock } from "../api/request.ts";
import { reportedMs } from "../lib/chart-series.ts";
import type { Theme } from "../lib/colour.ts";
import { writeListCommand } from "../lib/pprof-list.ts";
import { addMatcher, formatSelector, parseSelector, removeMatcher, type Matcher } from "../lib/selector.ts";
import { quoteForShell } from "../lib/text.ts";
import { resolveRange, type RangeMs } from "../lib/time-range.ts";
import { exactSearch } from "../lib/search.ts";
import type { PageState, Panels, ThemeChoice } from "../lib/url-state.ts";
import { listCandidates, listLabels, rankValues } from "../state/labels.ts";
import type { ProfileState } from "../state/profile.ts";
import type { Session } from "../state/session.ts";
import { CpuChart } from "./cpu-chart.tsx";
import { FilterChips } from "./filter-chips.tsx";
import { FlameGraph } from "./flame-graph.tsx";
import { FunctionTable } from "./function-table.tsx";
import { LinesDialog } from "./lines-dialog.tsx";
import { Flame, Icon, type IconName } from "./icons.tsx";
import { AwayBanner, EmptyNotice, RefusalBanner } from "./notices.tsx";
import { SelectorInput } from "./selector-input.tsx";
import { SummaryStrip } from "./summary-strip.tsx";
import { TimePicker, toRangeText } from "./time-picker.tsx";
import { useStore } from "./use-store.ts";
import { useTheme } from "./use-theme.ts";

/** A load that takes longer than this is shown; a shorter one would only flicker. */
const SLOW_MS = 300;

export function App({ session }: { session: Session }): JSX.Element {
  const page = useStore(session.page);
  const profile = useStore(session.profile);
  const theme = useTheme(page.theme);
  const slow = useSlow(profile.loading || profile.branching);
  const labels = useLabels(profile);
  const matchers = useMemo(() => parseSelector(page.query).matchers ?? null, [page.query]);
  const go = session.page.go;

  useShortcuts();
  const setMatchers = (next: Matcher[]): void => go({ query: formatSelector(next) });
  const selectorRefusal = profile.refusal?.parameter === "query" ? profile.refusal : null;
  const hasPicture = profile.graph !== null && profile.graph.totalNs > 0;
  return (
    <>
      <a class="skip" href="#main">Skip to the profile</a>
      <header class="top">
        <h1 class="brand"><Flame />Pilotlight</h1>
        <SelectorInput
          query={page.query}
          refusal={selectorRefusal}
          onCommit={(query) => (query === page.query ? session.refresh() : go({ query }))}
          listCandidates={(wanted) => listCandidates(wanted, completionRange(profile, page))}
        />
        <TimePicker
          range={page}
          zone={page.zone}
          refreshSeconds={page.refresh}
          loading={slow}
          readClock={readServerClock}
          onRange={(range) => go(range)}
          onZone={(zone) => go({ zone })}
          onRefreshSeconds={(refresh) => go({ refresh })}
          onRefresh={session.refresh}
        />
        <ThemeSwitch theme={page.theme} onTheme={(choice) => go({ theme: choice }, "replace")} />
      </header>
      <div class={slow ? "progress progress-on" : "progress"} role="progressbar" aria-label="Loading" aria-hidden={!slow} />
      {profile.away && <AwayBanner message={profile.away.message} hasPicture={hasPicture} onRetry={session.refresh} />}
      {profile.refusal && !selectorRefusal && <RefusalBanner refusal={profile.refusal} hasPicture={hasPicture} />}
      <FilterChips
        matchers={matchers}
        labels={labels}
        onMatchers={setMatchers}
        rankValues={(label, signal) =>
          rankValues(label, { query: formatSelector((matchers ?? []).filter((matcher) => matcher.label !== label)), range: completionRange(profile, page) }, signal)
        }
      />
      <main id="main" tabIndex={-1}>
        {profile.emptiness ? (
          <EmptyNotice
            emptiness={profile.emptiness}
            zone={page.zone}
            onRange={(range) => go(range)}
            onRemove={(gone) => setMatchers(gone.reduce<Matcher[]>(removeMatcher, matchers ?? []))}
            onClear={() => go({ query: "{}" })}
          />
        ) : (
          <Picture session={session} page={page} profile={profile} labels={labels} theme={theme} onMatchers={setMatchers} matchers={matchers ?? []} />
        )}
      </main>
    </>
  );
}

interface PictureProps {
  session: Session;
  page: PageState;
  profile: ProfileState;
  labels: string[];
  theme: Theme;
  matchers: Matcher[];
  onMatchers(matchers: Matcher[]): void;
}

function Picture({ session, page, profile, labels, theme, matchers, onMatchers }: PictureProps): JSX.Element {
  const functions = useStore(session.functions);
  const [lines, setLines] = useState<FunctionId | null>(null);
  const { selection, graph, series, nodes } = profile;
  const go = session.page.go;
  if (!selection || !graph || !series || !nodes) return <Skeleton failed={profile.away !== null || profile.refusal !== null} />;
  const zoomRange = (range: RangeMs): void => go(toRangeText(range));
  return (
    <>
      <CpuChart
        answer={series}
        by={profile.seriesBy}
        labels={labels}
        style={page.chart}
        theme={theme}
        zone={page.zone}
        onBy={(by) => go({ by })}
        onStyle={(chart) => go({ chart }, "replace")}
        onZoom={zoomRange}
        onPick={(value) => onMatchers(addMatcher(matchers, { label: profile.seriesBy, operator: "=", value }))}
      />
      <div class="strip">
        <SummaryStrip
          selection={selection}
          graph={graph}
          nodes={nodes}
          reportedMs={reportedMs([...series.series, ...(series.rest ? [series.rest] : [])].map(({ values }) => values), series.step_ms)}
          pprofCommand={`go tool pprof ${quoteForShell(location.origin + linkTo("pprof", selection))}`}
          svgUrl={linkTo("flamegraph.svg", selection)}
          foldedUrl={linkTo("folded", selection)}
          fetchStacks={(signal) => fetchStacks(selection, signal)}
          fetchUnknown={(signal) => fetchUnknown(selection, signal)}
          onSearch={(search) => go({ search, ...(page.panels === "table" && { panels: "both" as const }) })}
        />
        <PanelSwitch panels={page.panels} onPanels={(panels) => go({ panels }, "replace")} />
      </div>
      <div class={`panels panels-${page.panels}`}>
        {page.panels !== "table" && (
          <FlameGraph
            tree={graph.tree}
            nodeCount={graph.nodeCount}
            zoom={page.zoom}
            fold={page.fold}
            search={page.search}
            theme={theme}
            branching={profile.branching}
            branchless={profile.branchless}
            onZoom={(zoom) => go({ zoom })}
            onFold={(fold) => go({ fold }, "replace")}
            onSearch={(search) => go({ search }, "replace")}
            onFilter={(filter) => go({ filter, ...(page.panels === "graph" && { panels: "both" as const }) })}
            onExpand={session.profile.expand}
            onLines={setLines}
          />
        )}
        {page.panels !== "graph" && (
          <FunctionTable
            functions={functions}
            sort={page.sort}
            filter={page.filter}
            search={page.search}
            onSort={(sort) => go({ sort })}
            onFilter={(filter) => go({ filter }, "replace")}
            onPick={(row) => {
              const search = exactSearch(row.name, row.binary);
              go({ search: search === page.search ? "" : search });
            }}
            onLines={setLines}
            onNeed={session.functions.need}
          />
        )}
      </div>
      {lines && (
        <LinesDialog
          of={lines}
          selection={selection}
          listCommand={writeListCommand(lines.name, location.origin + linkTo("pprof", selection))}
          fetchLines={(signal) => fetchLines(selection, lines, signal)}
          onClose={() => setLines(null)}
        />
      )}
    </>
  );
}

/** Boxes where the picture will be, so that nothing jumps when it comes. */
function Skeleton({ failed }: { failed: boolean }): JSX.Element | null {
  if (failed) return null;
  return (
    <div class="skeleton" aria-hidden="true">
      <div class="panel skeleton-chart" />
      <div class="panel skeleton-flame" />
    </div>
  );
}

const PANELS: { panels: Panels; label: string }[] = [
  { panels: "both", label: "Both" },
  { panels: "graph", label: "Graph" },
  { panels: "table", label: "Table" },
];

function PanelSwitch({ panels, onPanels }: { panels: Panels; onPanels(panels: Panels): void }): JSX.Element {
  return (
    <div class="segments" role="group" aria-label="What to show">
      {PANELS.map((choice) => (
        <button type="button" key={choice.panels} aria-pressed={panels === choice.panels} onClick={() => onPanels(choice.panels)}>{choice.label}</button>
      ))}
    </div>
  );
}

const THEMES: { choice: ThemeChoice; icon: IconName; title: string }[] = [
  { choice: "auto", icon: "auto", title: "Colours as the system has them" },
  { choice: "light", icon: "sun", title: "Light colours" },
  { choice: "dark", icon: "moon", title: "Dark colours" },
];

function ThemeSwitch({ theme, onTheme }: { theme: ThemeChoice; onTheme(theme: ThemeChoice): void }): JSX.Element {
  const at = THEMES.findIndex(({ choice }) => choice === theme);
  const now = THEMES[at]!;
  const next = THEMES[(at + 1) % THEMES.length]!;
  return (
    <button type="button" class="tool theme" title={`${now.title}. Click: ${next.title.toLowerCase()}`} aria-label={now.title} onClick={() => onTheme(next.choice)}>
      <Icon name={now.icon} />
    </button>
  );
}

/** The range to complete and rank within: what is shown, or what was asked before anything was. */
function completionRange(profile: ProfileState, page: PageState): RangeMs {
  if (profile.selection) return profile.selection.range;
  try {
    return resolveRange(page, readServerClock(), page.zone);
  } catch {
    const now = readServerClock();
    return { fromMs: now - 900_000, toMs: now };
  }
}

/** The labels in the range that is shown; the last known while the next are awaited. */
function useLabels(profile: ProfileState): string[] {
  const [labels, setLabels] = useState<string[]>([]);
  const range = profile.selection?.range;
  useEffect(() => {
    let current = true;
    if (range) listLabels(range).then((next) => current && setLabels(next), () => undefined);
    return () => {
      current = false;
    };
  }, [range]);
  return labels;
}

/** True once something has been going on for long enough to be worth showing. */
function useSlow(busy: boolean): boolean {
  const [slow, setSlow] = useState(false);
  useEffect(() => {
    if (!busy) return setSlow(false);
    const timer = setTimeout(() => setSlow(true), SLOW_MS);
    return () => clearTimeout(timer);
  }, [busy]);
  return slow;
}

/** `/` goes to the flame graph's search from anywhere but a field. */
function useShortcuts(): void {
  useEffect(() => {
    const onKeyDown = (event: KeyboardEvent): void => {
      const target = event.target as HTMLElement;
      if (event.key !== "/" || event.ctrlKey || event.metaKey || target.matches("input, select, textarea")) return;
      const field = document.querySelector<HTMLInputElement>("#flame-search");
      if (!field) return;
      event.preventDefault();
      field.focus();
      field.select();
    };
    document.addEventListener("keydown", onKeyDown);
    return () => document.removeEventListener("keydown", onKeyDown);
  }, []);
}
