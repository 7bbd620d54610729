// The whole page: reads the stores and passes values and callbacks to the views.
import type { JSX } from "preact";
import { useEffect, useMemo, useState } from "preact/hooks";
import type { FunctionId } from "../api/routes.ts";
import { reportedMs } from "../lib/chart-series.ts";
import type { Theme } from "../lib/colour.ts";
import { formatDuration } from "../lib/format.ts";
import { writeListCommand } from "../lib/pprof-list.ts";
import { addMatcher, formatSelector, parseSelector, removeMatcher, type Matcher } from "../lib/selector.ts";
import { quoteForShell } from "../lib/text.ts";
import type { RangeMs } from "../lib/time-range.ts";
import { exactSearch } from "../lib/search.ts";
import type { PageState, Panels, ThemeChoice } from "../lib/url-state.ts";
import { createLabels } from "../state/labels.ts";
import { linksOf } from "../state/links.ts";
import type { ProfileState } from "../state/profile.ts";
import type { Session } from "../state/session.ts";
import { ContainerTable } from "./container-table.tsx";
import { CpuChart } from "./cpu-chart.tsx";
import { FilterChips } from "./filter-chips.tsx";
import { FlameGraph } from "./flame-graph.tsx";
import { FunctionTable } from "./function-table.tsx";
import { LinesDialog } from "./lines-dialog.tsx";
import { Flame, Icon, type IconName } from "./icons.tsx";
import { UnreachableBanner, EmptyNotice, NotStoredBanner, RefusalBanner } from "./notices.tsx";
import { FloatingProgress } from "./question-progress.tsx";
import { SelectorInput } from "./selector-input.tsx";
import { SummaryStrip } from "./summary-strip.tsx";
import { TimePicker, toRangeText } from "./time-picker.tsx";
import { useAnswer } from "./use-answer.ts";
import { useStore } from "./use-store.ts";
import { useTheme } from "./use-theme.ts";

/** The progress bar appears after this time; for a shorter load it would only flicker. */
const SLOW_MS = 300;

export function App({ session }: { session: Session }): JSX.Element {
  const page = useStore(session.page);
  const profile = useStore(session.profile);
  const theme = useTheme(page.theme);
  const slow = useSlow(profile.loading || profile.branchLoading);
  const { completions } = useStore(session.completion);
  const labels = useAnswer(createLabels, profile.selection?.range ?? null).answer ?? [];
  const matchers = useMemo(() => parseSelector(page.query).matchers ?? null, [page.query]);
  const go = session.page.go;

  useShortcuts();
  const setMatchers = (next: Matcher[]): void => go({ query: formatSelector(next) });
  const selectorRefusal = profile.refusal?.parameter === "query" ? profile.refusal : null;
  // A pod that is not to be profiled has accounts and no samples.
  const hasAccounts = page.panels === "containers" && (profile.containers?.count ?? 0) > 0;
  const hasProfile = profile.graph !== null && profile.graph.totalNs > 0;
  return (
    <>
      <a class="skip" href="#main">Skip to the profile</a>
      <header class="top">
        <h1 class="brand"><Flame />Pilotlight</h1>
        <SelectorInput
          query={page.query}
          refusal={selectorRefusal}
          onCommit={(query) => (query === page.query ? session.refresh() : go({ query }))}
          completions={completions}
          onComplete={(context) => session.completion.ask(context, session.range())}
        />
        <TimePicker
          range={page}
          zone={page.zone}
          refreshSeconds={page.refresh}
          loading={slow}
          kept={profile.status?.kept ?? null}
          damage={profile.status?.damage ?? []}
          readClock={session.readClock}
          onRange={(range) => go(range)}
          onZone={(zone) => go({ zone })}
          onRefreshSeconds={(refresh) => go({ refresh })}
          onRefresh={session.refresh}
        />
        <ThemeSwitch theme={page.theme} onTheme={(choice) => go({ theme: choice }, "replace")} />
      </header>
      <div class={slow ? "progress progress-on" : "progress"} role="progressbar" aria-label="Loading" aria-hidden={!slow} />
      {profile.progress && <FloatingProgress progress={profile.progress} />}
      {profile.unreachable && <UnreachableBanner message={profile.unreachable.message} hasProfile={hasProfile} onRetry={session.refresh} />}
      {profile.refusal && !selectorRefusal && <RefusalBanner refusal={profile.refusal} hasProfile={hasProfile} />}
      {profile.status?.ingest.ready === false && <NotStoredBanner reason={profile.status.ingest.reason ?? ""} />}
      <FilterChips
        matchers={matchers}
        labels={labels}
        readRange={session.range}
        onMatchers={setMatchers}
      />
      <main id="main" tabIndex={-1}>
        {profile.emptyReason && !hasAccounts ? (
          <EmptyNotice
            emptyReason={profile.emptyReason}
            zone={page.zone}
            onRange={(range) => go(range)}
            onRemove={(gone) => setMatchers(gone.reduce<Matcher[]>(removeMatcher, matchers ?? []))}
            onClear={() => go({ query: "{}" })}
          />
        ) : (
          <ProfileView session={session} page={page} profile={profile} labels={labels} theme={theme} onMatchers={setMatchers} matchers={matchers ?? []} />
        )}
      </main>
    </>
  );
}

interface ProfileViewProps {
  session: Session;
  page: PageState;
  profile: ProfileState;
  labels: string[];
  theme: Theme;
  matchers: Matcher[];
  onMatchers(matchers: Matcher[]): void;
}

function ProfileView({ session, page, profile, labels, theme, matchers, onMatchers }: ProfileViewProps): JSX.Element {
  const functions = useStore(session.functions);
  const [lines, setLines] = useState<FunctionId | null>(null);
  const { selection, graph, series, nodes, containers } = profile;
  const go = session.page.go;
  const hasGraph = page.panels === "both" || page.panels === "graph";
  if (!selection || !graph || !series || !nodes || !containers) return <Skeleton failed={profile.unreachable !== null || profile.refusal !== null} />;
  const links = linksOf(selection, new URL(".", location.href).href);
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
          zone={page.zone}
          reportedMs={reportedMs(series.covered_ms)}
          pprofCommand={`go tool pprof ${quoteForShell(links.pprof)}`}
          svgUrl={links.svg}
          foldedUrl={links.folded}
          onSearch={(search) => go({ search, ...(!hasGraph && { panels: "both" as const }) })}
        />
        <PanelSwitch panels={page.panels} throttledNs={containers.total.throttled_ns} onPanels={(panels) => go({ panels }, "replace")} />
      </div>
      <div class={`panels panels-${page.panels}`}>
        {hasGraph && (
          <FlameGraph
            tree={graph.tree}
            zoom={page.zoom}
            fold={page.fold}
            search={page.search}
            theme={theme}
            branchLoading={profile.branchLoading}
            branchMissing={profile.branchMissing}
            onZoom={(zoom) => go({ zoom })}
            onFold={(fold) => go({ fold }, "replace")}
            onSearch={(search) => go({ search }, "replace")}
            onFilter={(filter) => go({ filter, ...(page.panels === "graph" && { panels: "both" as const }) })}
            onExpand={session.profile.expand}
            onLines={setLines}
          />
        )}
        {page.panels === "containers" && (
          <ContainerTable
            selection={selection}
            matchers={matchers}
            zone={page.zone}
            sort={page.containerSort}
            onSort={(containerSort) => go({ containerSort })}
            onPick={(picked) => go({ query: formatSelector(picked.reduce(addMatcher, matchers)), panels: "both" })}
          />
        )}
        {(page.panels === "both" || page.panels === "table") && (
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
          listCommand={writeListCommand(lines.name, links.pprof)}
          onClose={() => setLines(null)}
        />
      )}
    </>
  );
}

/** Placeholders in the profile's layout, so that nothing moves when the profile arrives. */
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
  { panels: "containers", label: "Containers" },
];

interface PanelSwitchProps {
  panels: Panels;
  /** Time in which CPU limits stopped containers of the selection. */
  throttledNs: number;
  onPanels(panels: Panels): void;
}

function PanelSwitch({ panels, throttledNs, onPanels }: PanelSwitchProps): JSX.Element {
  return (
    <div class="segments" role="group" aria-label="Panels">
      {PANELS.map((choice) => (
        <button type="button" key={choice.panels} aria-pressed={panels === choice.panels} onClick={() => onPanels(choice.panels)}>
          {choice.label}
          {choice.panels === "containers" && throttledNs > 0 && <span class="warn-dot" title={`CPU limits stopped containers for ${formatDuration(throttledNs)}`} />}
        </button>
      ))}
    </div>
  );
}

const THEMES: { choice: ThemeChoice; icon: IconName; title: string }[] = [
  { choice: "auto", icon: "auto", title: "Colours of the system" },
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

/** Returns true once `busy` has been true for `SLOW_MS`. */
function useSlow(busy: boolean): boolean {
  const [slow, setSlow] = useState(false);
  useEffect(() => {
    if (!busy) return setSlow(false);
    const timer = setTimeout(() => setSlow(true), SLOW_MS);
    return () => clearTimeout(timer);
  }, [busy]);
  return slow;
}

/** `/` focuses the flame graph's search, except from within a text field. */
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
