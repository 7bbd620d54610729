import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { DEFAULT_STATE } from "../../src/lib/url-state.ts";
import { createAnswer } from "../../src/state/answer.ts";
import { createCompletion } from "../../src/state/completion.ts";
import { createFunctions, PAGE_ROWS } from "../../src/state/functions.ts";
import { linksOf } from "../../src/state/links.ts";
import { createPage, type Browser } from "../../src/state/page.ts";
import { createStacks } from "../../src/state/panels.ts";
import { createProfile, type Profile } from "../../src/state/profile.ts";
import { createSession } from "../../src/state/session.ts";
import { createStore } from "../../src/state/store.ts";
import { findCompletionContext } from "../../src/lib/completion.ts";
import { listChildren, nameOf } from "../../src/lib/flame-tree.ts";
import { resolvePath } from "../../src/lib/flame-path.ts";
import type { QuestionProgress } from "../../src/api/shapes.ts";
import { createFixtureHandler, type FixtureOptions } from "../fixture/handler.ts";

const NOW_MS = Date.UTC(2026, 10, 23, 2, 15, 0);

interface Served {
  asked: string[];
  unreachable: boolean;
  /** The delay of an answer. */
  delayMs(url: string): number;
  /** How far the server is with any question. */
  progress: QuestionProgress | null;
  /** The names that questions were given. */
  names: string[];
}

const READING: QuestionProgress = { state: "reading", position: 0, segments: 24, segments_read: 3, bytes: 800, bytes_read: 100 };
const UNKNOWN: QuestionProgress = { state: "unknown", position: 0, segments: 0, segments_read: 0, bytes: 0, bytes_read: 0 };

/** Answers `fetch` from the fixture in this process, and records the URLs. */
function serve(options: FixtureOptions = {}): Served {
  const handle = createFixtureHandler({ nowMs: NOW_MS, ...options });
  const state: Served = { asked: [], unreachable: false, delayMs: () => 0, progress: null, names: [] };
  vi.stubGlobal("fetch", async (url: string, init?: RequestInit) => {
    state.asked.push(url);
    const waitMs = state.delayMs(url);
    await (waitMs > 0 ? new Promise((resolve) => setTimeout(resolve, waitMs)) : Promise.resolve());
    if (init?.signal?.aborted) throw new DOMException("aborted", "AbortError");
    if (state.unreachable) throw new TypeError("failed to fetch");
    if (url.startsWith("api/v1/progress?")) return new Response(JSON.stringify(state.progress));
    const name = new Headers(init?.headers).get("pilotlight-question");
    if (name) state.names.push(name);
    const headers = new Headers();
    let body: BodyInit = "";
    const response = { statusCode: 200, setHeader: (name: string, value: string) => headers.set(name, value), end: (sent: BodyInit) => (body = sent) };
    handle({ url, headers: init?.headers ?? {} } as never, response as never);
    return new Response(body, { status: response.statusCode, headers });
  });
  return state;
}

beforeEach(() => {
  vi.useFakeTimers({ now: NOW_MS });
});
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

const settle = (ms = 50): Promise<void> => vi.advanceTimersByTimeAsync(ms).then(() => undefined);

function fakeBrowser(search = "", stored: Record<string, string> = {}): Browser & { back(to: string): void; pushed: string[] } {
  const listeners: (() => void)[] = [];
  const location = { search, pathname: "/" };
  const pushed: string[] = [];
  const values = new Map(Object.entries(stored));
  const move = (url: unknown): void => void (location.search = String(url).replace("/", ""));
  return {
    location,
    pushed,
    history: {
      pushState: (_, __, url) => (pushed.push(String(url)), move(url)),
      replaceState: (_, __, url) => move(url),
    },
    storage: { getItem: (key) => values.get(key) ?? null, setItem: (key, value) => void values.set(key, value) },
    onBack: (listener) => listeners.push(listener),
    back(to) {
      location.search = to;
      listeners.forEach((listener) => listener());
    },
  };
}

describe("createStore", () => {
  it("notifies listeners of changes only, until they unsubscribe", () => {
    const store = createStore({ a: 1, b: 2 });
    const heard = vi.fn();
    const leave = store.subscribe(heard);
    store.set({ a: 1 });
    expect(heard).not.toHaveBeenCalled();
    store.set({ a: 2 });
    leave();
    store.set({ a: 3 });
    expect(heard).toHaveBeenCalledTimes(1);
    expect(store.get()).toEqual({ a: 3, b: 2 });
  });
});

describe("createPage", () => {
  it("pushes steps, replaces while typing, and follows back", () => {
    const browser = fakeBrowser();
    const page = createPage(browser);
    page.go({ query: '{a="1"}' });
    page.go({ search: "x" }, "replace");
    expect(browser.pushed).toHaveLength(1);
    expect(browser.location.search).toContain("search=x");
    browser.back("");
    expect(page.get()).toEqual(DEFAULT_STATE);
  });
  it("adds no step when nothing changed", () => {
    const browser = fakeBrowser();
    createPage(browser).go({ query: "{}" });
    expect(browser.pushed).toEqual([]);
  });
  it("stores preferences, not the selection", () => {
    const browser = fakeBrowser();
    createPage(browser).go({ theme: "dark", query: '{a="1"}' });
    browser.location.search = "";
    expect(createPage(browser).get()).toMatchObject({ theme: "dark", query: "{}" });
  });
  it("works with a broken storage and without one", () => {
    expect(createPage(fakeBrowser("", { "pilotlight.preferences": "{" })).get()).toEqual(DEFAULT_STATE);
    expect(createPage(fakeBrowser("", { "pilotlight.preferences": '{"theme":"pink","panels":3}' })).get()).toEqual(DEFAULT_STATE);
    const refusing = { ...fakeBrowser(), storage: { getItem: () => { throw new Error("no"); }, setItem: () => { throw new Error("no"); } } };
    const page = createPage(refusing);
    page.go({ theme: "dark" });
    expect(page.get().theme).toBe("dark");
  });
});

describe("createProfile", () => {
  async function load(profile: Profile, patch = {}): Promise<void> {
    profile.load({ ...DEFAULT_STATE, ...patch });
    await settle();
  }

  it("requests everything for one range", async () => {
    const { asked } = serve();
    const profile = createProfile();
    await load(profile);
    const { graph, series, nodes, loading } = profile.get();
    expect(loading).toBe(false);
    expect(graph!.tree.total[0]).toBe(graph!.totalNs);
    expect(series!.series).toHaveLength(8);
    expect(nodes!.nodes).toHaveLength(2);
    const ofSelection = asked.filter((url) => url !== "api/v1/status");
    expect(ofSelection).toHaveLength(4);
    expect(new Set(ofSelection.map((url) => /from=\d+&to=\d+/.exec(url)![0])).size).toBe(1);
  });

  it("sums up the containers of a selection without its matchers of processes, which select none", async () => {
    const { asked } = serve();
    const profile = createProfile();
    await load(profile);
    const all = profile.get().containers!;
    expect(all.count).toBeGreaterThan(10);
    expect(all.total.throttled_ns).toBeGreaterThan(0);
    await load(profile, { query: '{comm="rustc", namespace="shop"}' });
    expect(profile.get().refusal).toBeNull();
    expect(profile.get().containers!.count).toBe(6);
    const url = asked.findLast((sent) => sent.includes("/containers"))!;
    expect(new URL(url, "http://x").searchParams.get("query")).toBe('{namespace="shop"}');
  });

  it("knows whether the server stores windows", async () => {
    serve();
    const profile = createProfile();
    await load(profile);
    expect(profile.get().status!.ingest).toEqual({ ready: true, reason: null });
    serve({ diskFull: true });
    await load(profile);
    expect(profile.get().status!.ingest.reason).toContain("the disk is full");
  });

  it("keeps the profile when the server refuses, and shows the error", async () => {
    serve();
    const profile = createProfile();
    await load(profile);
    const before = profile.get().graph;
    await load(profile, { query: "{a=b}" });
    expect(profile.get()).toMatchObject({ graph: before, refusal: { kind: "bad_selector", position: 3 }, unreachable: null });
    await load(profile, { from: "rubbish" });
    expect(profile.get()).toMatchObject({ graph: before, refusal: { kind: "bad_time" } });
    await load(profile);
    expect(profile.get().refusal).toBeNull();
  });

  it("retries with increasing delays while the server is unreachable", async () => {
    const server = serve();
    const profile = createProfile();
    await load(profile);
    const before = profile.get().graph;
    server.unreachable = true;
    server.asked.length = 0;
    await load(profile);
    expect(profile.get()).toMatchObject({ graph: before, loading: false });
    expect(profile.get().unreachable!.retryAtMs - Date.now()).toBeLessThanOrEqual(2_000);
    await settle(2_100);
    expect(profile.get().unreachable!.retryAtMs - Date.now()).toBeGreaterThan(3_000);
    server.unreachable = false;
    await settle(4_100);
    expect(profile.get().unreachable).toBeNull();
  });

  it("shows the answer to the last request, in whatever order answers arrive", async () => {
    serve();
    const profile = createProfile();
    profile.load({ ...DEFAULT_STATE });
    profile.load({ ...DEFAULT_STATE, query: '{comm="known"}' });
    await settle();
    expect(profile.get().selection!.query).toBe('{comm="known"}');
    expect(profile.get().graph!.tree.frames.name).toContain("warm_up");
    expect(profile.get().graph!.tree.frames.name).not.toContain("rustc_driver_impl::main");
  });

  it("shows the chart by the label chosen last, also when the earlier answer is slower", async () => {
    const server = serve();
    const profile = createProfile();
    await load(profile);
    server.delayMs = (url) => (url.includes("by=node") ? 500 : 0);
    profile.loadSeries({ ...DEFAULT_STATE, by: "node" });
    profile.loadSeries({ ...DEFAULT_STATE, by: "exe" });
    await settle(1_000);
    expect(profile.get().seriesBy).toBe("exe");
    expect(Object.keys(profile.get().series!.series[0]!.labels)).toEqual(["exe"]);
  });

  it("shows the chart by the label chosen during a load", async () => {
    const server = serve();
    const profile = createProfile();
    await load(profile);
    server.delayMs = (url) => (url.includes("flamegraph") ? 500 : 0);
    profile.load({ ...DEFAULT_STATE });
    await settle(100);
    profile.loadSeries({ ...DEFAULT_STATE, by: "node" });
    await settle(2_000);
    expect(profile.get()).toMatchObject({ seriesBy: "node", loading: false });
  });

  it("retries the current request, not the one from before the server became unreachable", async () => {
    const server = serve();
    const profile = createProfile();
    await load(profile);
    server.unreachable = true;
    await load(profile);
    server.unreachable = false;
    profile.loadSeries({ ...DEFAULT_STATE, by: "node" });
    await settle(2_100);
    expect(profile.get()).toMatchObject({ seriesBy: "node", unreachable: null });
  });

  it("does not graft a branch of the previous profile into the next", async () => {
    const server = serve({ maxNodes: 30 });
    const profile = createProfile();
    await load(profile);
    const { tree } = profile.get().graph!;
    const cut = listChildren(tree, 0).find((child) => tree.frame[child] === -2)!;
    server.delayMs = (url) => (url.includes("max_nodes") ? 500 : 100);
    profile.load({ ...DEFAULT_STATE, query: '{comm="known"}' });
    profile.expand(cut);
    await settle(1_000);
    const { selection, graph, branchLoading } = profile.get();
    expect(selection!.query).toBe('{comm="known"}');
    expect(graph!.tree.frames.name).not.toContain("rustc_driver_impl::main");
    expect(branchLoading).toBe(false);
  });

  it("fetches the branch for a path, and keeps all sums", async () => {
    const { asked } = serve({ maxNodes: 300 });
    const profile = createProfile();
    const whole = createProfile();
    await load(whole, { query: '{comm="rustc"}' });
    // At 300 nodes the deepest node of the largest chain is certainly cut: take a real path from an
    // uncut tree.
    serve();
    await load(whole, { query: '{comm="rustc"}' });
    const full = whole.get().graph!.tree;
    // Below the largest entry function: incomplete stacks have other entries.
    let node = full.end[1]! - 1;
    while (full.depth[node]! < 20) node -= 1;
    const path: string[] = [];
    for (let at = node; at > 0; at = full.parent[at]!) path.unshift(nameOf(full, at));
    const limited = serve({ maxNodes: 300 });
    await load(profile, { query: '{comm="rustc"}' });
    expect(resolvePath(profile.get().graph!.tree, path).cutHere).toBe(true);
    profile.loadBranches(path);
    await settle();
    const { tree, totalNs } = profile.get().graph!;
    expect(resolvePath(tree, path)).toMatchObject({ steps: path.length });
    expect(tree.total[0]).toBe(totalNs);
    for (let at = 0; at < tree.length; at += 1) {
      const below = listChildren(tree, at).reduce((sum, child) => sum + tree.total[child]!, 0);
      if (tree.frame[at] !== -2) expect(below + tree.self[at]!).toBe(tree.total[at]);
    }
    expect(limited.asked.some((url) => url.includes("path="))).toBe(true);
    expect(asked.length).toBeGreaterThan(0);
  });

  it("fetches nodes cut directly below the root by requesting a larger tree", async () => {
    const { asked } = serve({ maxNodes: 30 });
    const profile = createProfile();
    await load(profile);
    const { tree } = profile.get().graph!;
    const cut = listChildren(tree, 0).find((child) => tree.frame[child] === -2)!;
    expect(cut).toBeGreaterThan(0);
    profile.expand(cut);
    await settle();
    expect(asked.at(-1)).toContain("max_nodes=1000000");
    expect(profile.get().graph!.tree.length).toBeGreaterThan(1_000);
    expect(profile.get().branchMissing).toBe(false);
  });

  it.each([
    [{ empty: true }, {}, { kind: "store", nodes: [] }],
    [{ empty: true, cannotSample: true }, {}, { kind: "store", nodes: [{ node: "node-z", status: "cannot_sample" }] }],
    [{ empty: true, unread: true }, {}, { kind: "unread", incomplete: [{ windows: 2 }, { windows: 1 }] }],
    [{}, { from: "2020-01-01T00:00:00Z", to: "2020-01-01T01:00:00Z" }, { kind: "range" }],
    [{}, { query: '{comm="gone", node="node-a"}' }, { kind: "matchers", matchers: [{ label: "comm", operator: "=", value: "gone" }] }],
    [{}, { query: '{comm="known", exe="/usr/bin/bash"}' }, { kind: "combination" }],
  ])("explains why there is nothing: %j %j", async (fixture, patch, expected) => {
    serve(fixture);
    const profile = createProfile();
    await load(profile, patch);
    expect(profile.get().emptyReason).toMatchObject(expected);
  });
});

describe("createAnswer", () => {
  it("keeps the answer to the last request, in whatever order answers arrive", async () => {
    const answer = createAnswer((question: { text: string; waitMs: number }) => new Promise<string>((resolve) => setTimeout(() => resolve(question.text), question.waitMs)));
    answer.ask({ text: "slow", waitMs: 500 });
    answer.ask({ text: "quick", waitMs: 10 });
    await settle(1_000);
    expect(answer.get()).toEqual({ answer: "quick", failed: null, progress: null });
  });

  it("keeps the previous answer when a request fails, and has the error", async () => {
    const server = serve();
    const stacks = createStacks();
    stacks.ask({ query: "{}", range: { fromMs: NOW_MS - 900_000, toMs: NOW_MS } });
    await settle();
    const before = stacks.get().answer;
    expect(before).not.toBeNull();
    server.unreachable = true;
    stacks.ask({ query: "{}", range: { fromMs: NOW_MS - 900_000, toMs: NOW_MS } });
    await settle();
    expect(stacks.get().answer).toBe(before);
    expect(stacks.get().failed).toContain("does not answer");
  });
});

describe("a question that takes long", () => {
  const graphMs = (waitMs: number) => (url: string) => (url.includes("flamegraph") || url.includes("stacks") ? waitMs : 0);

  it("tells how far the server is, from a second on, until the answer comes", async () => {
    const server = serve();
    server.delayMs = graphMs(2_400);
    const profile = createProfile();
    profile.load(DEFAULT_STATE);
    server.progress = { ...READING, state: "waiting", position: 2, segments: 0 };
    await settle(900);
    expect(server.asked.some((url) => url.includes("progress"))).toBe(false);
    await settle(200);
    expect(profile.get().progress).toEqual(server.progress);
    server.progress = READING;
    await settle(500);
    expect(profile.get().progress).toEqual(READING);
    // The server has answered, and the answer is on its way.
    server.progress = UNKNOWN;
    await settle(500);
    expect(profile.get().progress).toEqual(READING);
    await settle(1_000);
    expect(profile.get()).toMatchObject({ progress: null, loading: false });
    const looks = server.asked.filter((url) => url.includes("progress"));
    expect(looks).toHaveLength(3);
    expect(new Set(looks)).toEqual(new Set([`api/v1/progress?question=${server.names[0]}`]));
    expect(server.names).toEqual([expect.stringMatching(/^[0-9a-f]{32}$/)]);
  });

  it("is forgotten when another one replaces it, and when it fails", async () => {
    const server = serve();
    server.delayMs = graphMs(5_000);
    server.progress = READING;
    const profile = createProfile();
    profile.load(DEFAULT_STATE);
    await settle(1_100);
    expect(profile.get().progress).toEqual(READING);
    profile.load({ ...DEFAULT_STATE, query: '{comm="known"}' });
    expect(profile.get().progress).toBeNull();
    await settle(900);
    expect(profile.get().progress).toBeNull();
    await settle(200);
    expect(profile.get().progress).toEqual(READING);
    server.unreachable = true;
    await settle(4_000);
    expect(profile.get()).toMatchObject({ progress: null, unreachable: { message: "the server does not answer" } });
  });

  it("is shown in its panel", async () => {
    const server = serve();
    server.delayMs = graphMs(2_000);
    server.progress = READING;
    const stacks = createStacks();
    stacks.ask({ query: "{}", range: { fromMs: NOW_MS - 900_000, toMs: NOW_MS } });
    await settle(1_100);
    expect(stacks.get()).toMatchObject({ answer: null, progress: READING });
    await settle(1_000);
    expect(stacks.get().answer).not.toBeNull();
    expect(stacks.get().progress).toBeNull();
  });
});

describe("createCompletion", () => {
  const range = { fromMs: NOW_MS - 900_000, toMs: NOW_MS };

  it("shows the completions of the last request, and none once it is closed", async () => {
    const server = serve();
    const completion = createCompletion();
    server.delayMs = (url) => (url.includes("/label/comm/") ? 500 : 0);
    completion.ask(findCompletionContext('{comm="', 7), range);
    completion.ask(findCompletionContext('{node="', 7), range);
    await settle(1_000);
    expect(completion.get().completions!.context).toMatchObject({ kind: "value", label: "node" });
    completion.ask(findCompletionContext('{exe="', 6), range);
    completion.ask(null, range);
    await settle(1_000);
    expect(completion.get().completions).toBeNull();
  });
});

describe("linksOf", () => {
  it("always contains the selector, so that a lost selector is noticed", () => {
    const range = { fromMs: 1, toMs: 2 };
    const url = new URL(linksOf({ query: DEFAULT_STATE.query, range }, "http://127.0.0.1:7070/").pprof);
    expect(url.searchParams.get("query")).toBe("{}");
    const odd = linksOf({ query: '{comm="a;b&c+d"}', range }, "").pprof;
    expect(odd).not.toContain(";");
    expect(new URL(odd, "http://x").searchParams.get("query")).toBe('{comm="a;b&c+d"}');
  });
});

describe("createFunctions", () => {
  const selection = { query: "{}", range: { fromMs: NOW_MS - 900_000, toMs: NOW_MS } };

  it("requests a page once, and keeps the old rows until new ones arrive", async () => {
    const { asked } = serve();
    const functions = createFunctions();
    functions.ask({ selection, sort: "self", filter: "" });
    await settle();
    const first = functions.get().pages.get(0)!;
    expect(first).toHaveLength(PAGE_ROWS);
    functions.need({ first: 390, end: 410 });
    functions.need({ first: 391, end: 411 });
    await settle();
    expect([...functions.get().pages.keys()]).toEqual([0, 1, 2]);
    expect(asked).toHaveLength(3);
    functions.ask({ selection, sort: "total", filter: "" });
    expect(functions.get().pages.get(0)).toBe(first);
    await settle();
    expect([...functions.get().pages.keys()]).toEqual([0]);
  });

  it("keeps its rows when a request fails, and shows the error", async () => {
    const server = serve();
    const functions = createFunctions();
    functions.ask({ selection, sort: "self", filter: "" });
    await settle();
    server.unreachable = true;
    functions.ask({ selection, sort: "total", filter: "" });
    await settle();
    expect(functions.get().failed).toContain("does not answer");
    expect(functions.get().pages.get(0)).toHaveLength(PAGE_ROWS);
  });
});

describe("createSession", () => {
  it("requests only the changed part", async () => {
    const { asked } = serve();
    const session = createSession(fakeBrowser());
    await settle();
    const routes = (): string[] => asked.splice(0).map((url) => /v1\/([a-z]+)/.exec(url)![1]!).sort();
    expect(routes()).toEqual(["containers", "flamegraph", "nodes", "status", "timeseries", "top"]);
    session.page.go({ by: "node" });
    await settle();
    expect(routes()).toEqual(["timeseries"]);
    session.page.go({ sort: "total" });
    await settle();
    expect(routes()).toEqual(["top"]);
    session.page.go({ search: "x", zoom: ["main"], theme: "dark", panels: "graph" });
    await settle();
    expect(routes()).toEqual([]);
    session.page.go({ query: '{comm="known"}' });
    await settle();
    expect(routes()).toEqual(["containers", "flamegraph", "nodes", "status", "timeseries", "top"]);
  });

  it("refreshes relative ranges only", async () => {
    const { asked } = serve();
    const session = createSession(fakeBrowser("?refresh=10"));
    await settle();
    asked.length = 0;
    await settle(10_100);
    expect(asked.filter((url) => url.includes("flamegraph"))).toHaveLength(1);
    session.page.go({ from: "2026-11-23T02:00:00Z", to: "2026-11-23T02:10:00Z" });
    await settle();
    asked.length = 0;
    await settle(30_000);
    expect(asked).toEqual([]);
  });

  it("checks an empty store again periodically", async () => {
    const { asked } = serve({ empty: true });
    const session = createSession(fakeBrowser());
    await settle();
    expect(session.profile.get().emptyReason).toEqual({ kind: "store", nodes: [] });
    asked.length = 0;
    serve();
    await settle(3_100);
    expect(session.profile.get().emptyReason).toBeNull();
    expect(session.profile.get().graph!.totalNs).toBeGreaterThan(0);
  });
});
