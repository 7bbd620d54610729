// The page in a real browser with the fixture server: unnamed frames, and functions by line.
import { describe, expect, it } from "vitest";
import type { Page } from "playwright-core";
import type { LinesAnswer, UnknownAnswer } from "../../src/api/shapes.ts";
import { formatPercent } from "../../src/lib/format.ts";
import { hasChromium, saveShot } from "./browser.ts";
import { field, KNOWN, usePages } from "./pages.ts";

const RUSTC = `/?tz=utc&query=${encodeURIComponent('{comm="rustc"}')}`;

describe.skipIf(!hasChromium())("frames without a name", () => {
  const { open, openGraph, opened } = usePages();

  const asked = (route: string): string[] => opened().server.asked.filter((url) => url.includes(`/${route}?`));
  async function openPanel(page: Page): Promise<void> {
    await page.locator(".unknown-popover > button").click();
    await page.locator(".unknown .stacks-share").waitFor();
  }
  async function readUnknown(): Promise<UnknownAnswer> {
    const response = await fetch(opened().server.url + asked("unknown").at(-1)!);
    return (await response.json()) as UnknownAnswer;
  }

  it("are shown by binary and reason, with remedies and the build id to copy", async () => {
    const page = await openGraph("/?tz=utc", { context: { permissions: ["clipboard-read", "clipboard-write"] } });
    expect(asked("unknown")).toEqual([]);
    await openPanel(page);
    const unknown = await readUnknown();
    const share = unknown.unnamed_ns / unknown.total_ns;
    expect(share).toBeGreaterThan(0);
    expect(await page.locator(".unknown .stacks-share").innerText()).toBe(formatPercent(share));
    // The summary shows the same share without the panel.
    expect(await page.locator(".unknown-popover > button").innerText()).toBe(formatPercent(1 - share));
    expect(await page.locator(".unknown .outcomes li").count()).toBe(unknown.reasons.length);
    expect(await page.locator(".unknown .outcomes").innerText()).not.toContain("_");
    const rows = page.locator(".unknown .stops tbody tr:not(.unknown-open)");
    expect(await rows.count()).toBe(unknown.by_binary.binaries.length + (unknown.by_binary.rest ? 1 : 0));
    const shares = ({ unnamed_self_ns: own, unnamed_ns: all }: { unnamed_self_ns: number; unnamed_ns: number }): string[] => [own, all].map((ns) => formatPercent(ns / unknown.total_ns));
    expect(await rows.first().locator(".number").allInnerTexts()).toEqual(shares(unknown.by_binary.binaries[0]!));
    // The first binary's advice is open; a click opens another's.
    const stripped = unknown.by_binary.binaries.findIndex(({ reasons }) => reasons[0]!.reason === "no_symbol");
    const { build_id: buildId, binary } = unknown.by_binary.binaries[stripped]!;
    const toggle = rows.nth(stripped).getByRole("button");
    if ((await toggle.getAttribute("aria-expanded")) === "false") await toggle.click();
    const advice = page.locator(".unknown-advice");
    expect(await advice.count()).toBe(1);
    expect(await advice.innerText()).toContain("debuginfo upload FILE");
    await saveShot(page, "unknown-panel");
    await advice.getByRole("button", { name: "Copy the build id" }).click();
    await expect.poll(() => page.evaluate(() => navigator.clipboard.readText())).toBe(buildId);
    await advice.getByRole("button", { name: "Highlight" }).click();
    await expect.poll(() => field(page, "search")).toBe(binary);
    await expect.poll(() => page.locator(".unknown").count()).toBe(0);
  });

  for (const [theme, width, height] of [["light", 1280, 800], ["dark", 1280, 800], ["light", 3840, 2000], ["dark", 3840, 2000], ["dark", 700, 900]] as const) {
    it(`fit a window of ${width} pixels in ${theme} colours`, async () => {
      const page = await openGraph(`/?tz=utc&theme=${theme}`, { context: { viewport: { width, height } } });
      await openPanel(page);
      const panel = (await page.locator(".unknown-popover .popover-panel").boundingBox())!;
      expect([panel.x >= 0, panel.x + panel.width <= width]).toEqual([true, true]);
      expect(await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth)).toBeLessThanOrEqual(0);
      await saveShot(page, `unknown-panel-${theme}-${width}`);
    });
  }

  it("show the reason on hover, in the graph and in the table", async () => {
    const page = await openGraph(`${RUSTC}&panels=both&search=${encodeURIComponent("+0x")}&filter=${encodeURIComponent("+0x")}`);
    // The keyboard reaches every match.
    await page.locator(".flame-canvas").focus();
    await page.keyboard.press("n");
    const card = page.locator(".card");
    await expect.poll(() => card.innerText()).toMatch(/\+0x/);
    const text = (await card.innerText()).replaceAll(/\s+/g, " ");
    expect(text).toMatch(/build id [0-9a-f]{40}/);
    expect(text).toContain("Unnamed: no symbol.");
    await saveShot(page, "unknown-card");
    const row = page.locator(".row-unnamed .row-name").first();
    expect(await row.getAttribute("title")).toMatch(/Unnamed: (no symbol, build id [0-9a-f]{40}|JIT without a map)/);
  });

  it("are absent if every frame has a name", async () => {
    const page = await openGraph(KNOWN);
    expect(await page.locator(".unknown-popover > button").innerText()).toBe("100 %");
    await openPanel(page);
    expect(await page.locator(".unknown .stops").count()).toBe(0);
    expect(await page.locator(".unknown").innerText()).toContain("is named");
    await saveShot(page, "unknown-panel-none");
  });

  it("keep the last answer when a request fails", async () => {
    const page = await open({ address: "/?tz=utc" });
    await page.route("**/api/v1/unknown?*", (route) => route.abort());
    await page.locator(".unknown-popover > button").click();
    await expect.poll(() => page.locator(".unknown [role=alert]").innerText()).toContain("Not up to date");
    opened().errors.length = 0; // The browser says that the request failed, as it should.
  });
});

describe.skipIf(!hasChromium())("a function by line", () => {
  const { openGraph, opened } = usePages();

  async function readLines(): Promise<LinesAnswer> {
    const url = opened().server.asked.filter((asked) => asked.includes("/lines?")).at(-1)!;
    return (await (await fetch(opened().server.url + url)).json()) as LinesAnswer;
  }

  async function check(page: Page, name: string): Promise<LinesAnswer> {
    const dialog = page.locator("dialog.lines");
    await dialog.locator("tbody tr").first().waitFor();
    expect(await dialog.locator("h2").innerText()).toBe(name);
    const lines = await readLines();
    expect(await dialog.locator("tbody tr").count()).toBe(lines.lines.length);
    const numbers = await dialog.locator("tbody td:first-child").allInnerTexts();
    expect(numbers).toEqual(lines.lines.map(({ line }) => String(line)));
    expect(await dialog.locator("code").innerText()).toContain(`go tool pprof -list '^${name}$'`);
    return lines;
  }

  it("opens from the table, and closes with Escape", async () => {
    const page = await openGraph(KNOWN);
    const row = page.locator(".functions .row:not(.row-head)").first();
    const name = await row.locator(".row-name").innerText();
    await row.hover();
    await row.getByRole("button", { name: "lines" }).click();
    const lines = await check(page, name);
    expect(lines.self_ns).toBeGreaterThan(0);
    // A click on the button does not select the row.
    expect(field(page, "search")).toBeNull();
    await page.keyboard.press("Escape");
    await expect.poll(() => page.locator("dialog.lines").count()).toBe(0);
    // The keyboard works too.
    await page.locator(".functions .rows").focus();
    await page.keyboard.press("l");
    await check(page, name);
  });

  for (const [theme, width, height] of [["light", 1280, 800], ["dark", 1280, 800], ["light", 3840, 2000], ["dark", 3840, 2000]] as const) {
    it(`opens from the graph, and fits ${width} pixels in ${theme} colours`, async () => {
      const page = await openGraph(`/?tz=utc&theme=${theme}&query=${encodeURIComponent('{comm="walk"}')}`, { context: { viewport: { width, height } } });
      await page.locator(".flame-canvas").focus();
      await page.keyboard.press("ArrowDown");
      await page.keyboard.press("Shift+F10");
      await page.getByRole("menuitem", { name: "Time by line" }).click();
      await check(page, "main");
      const box = (await page.locator("dialog.lines").boundingBox())!;
      expect([box.x >= 0, box.y >= 0, box.x + box.width <= width, box.y + box.height <= height]).toEqual([true, true, true, true]);
      await saveShot(page, `lines-${theme}-${width}`);
    });
  }
});
