// The page in a real browser with the fixture server: complete stacks, the self-check, and folded
// recursion.
import { describe, expect, it } from "vitest";
import type { Page } from "playwright-core";
import type { StacksAnswer } from "../../src/api/shapes.ts";
import { formatCount, formatPercent } from "../../src/lib/format.ts";
import { hasChromium, saveShot } from "./browser.ts";
import { canvasData, clickBox, field, hoverBox, KNOWN, usePages } from "./pages.ts";

const WALK = `/?tz=utc&query=${encodeURIComponent('{comm="walk"}')}`;

describe.skipIf(!hasChromium())("complete stacks", () => {
  const { open, openGraph, opened } = usePages();

  const askedStacks = (): string[] => opened().server.asked.filter((url) => url.includes("/stacks?"));
  async function openPanel(page: Page): Promise<void> {
    await page.locator(".stacks-popover > button").click();
    await page.locator(".stacks-share").waitFor();
  }
  /** Repeats the page's last request. */
  async function readStacks(): Promise<StacksAnswer> {
    const response = await fetch(opened().server.url + askedStacks().at(-1)!);
    return (await response.json()) as StacksAnswer;
  }

  it("shows the share, the reasons, and where incomplete stacks stop", async () => {
    const page = await openGraph("/?tz=utc");
    expect(askedStacks()).toEqual([]);
    await openPanel(page);
    const stacks = await readStacks();
    const userNs = stacks.total_ns - stacks.kernel_only_ns;
    const share = formatPercent((stacks.complete_ns - stacks.kernel_only_ns) / userNs);
    expect(await page.locator(".stacks-share").innerText()).toBe(share);
    expect(await page.locator(".stacks-popover > button").innerText()).toBe(share);
    const kinds = stacks.outcomes.filter(({ outcome }) => outcome !== "kernel_only");
    expect(kinds.length).toBeGreaterThan(6);
    expect(await page.locator(".outcomes li").count()).toBe(kinds.length);
    // The panel explains the most frequent outcome, and another after a click. It never shows a raw
    // code.
    expect(await page.locator(".outcomes").innerText()).not.toContain("_");
    expect(await page.locator(".outcomes p").count()).toBe(1);
    const last = page.locator(".outcome-label").last();
    await last.click();
    expect(await last.getAttribute("aria-expanded")).toBe("true");
    expect(await page.locator(".outcomes li").last().locator("p").count()).toBe(1);
    // The panel stays within the window.
    const panel = (await page.locator(".stacks-popover .popover-panel").boundingBox())!;
    expect([panel.x >= 0, panel.x + panel.width <= 1280, panel.y + panel.height <= 800]).toEqual([true, true, true]);
    const rows = page.locator(".stops tbody tr");
    expect(await rows.count()).toBe(stacks.by_binary.count);
    const largest = stacks.by_binary.binaries[0]!;
    expect(await rows.first().locator(".number").allInnerTexts()).toEqual([formatCount(largest.samples), formatPercent(largest.cpu_ns / largest.through_ns)]);
    await saveShot(page, "stacks-panel");
    await page.getByRole("button", { name: "Functions", exact: true }).click();
    await expect.poll(() => rows.count()).toBe(stacks.stops.functions.length + (stacks.stops.rest ? 1 : 0));
    await saveShot(page, "stacks-panel-functions");
  });

  it("highlights a binary that is clicked, also when only the table is shown", async () => {
    const page = await open({ address: "/?tz=utc&panels=table" });
    await openPanel(page);
    const { binary } = (await readStacks()).by_binary.binaries[0]!;
    await page.locator(".stops .link").first().click();
    await expect.poll(() => field(page, "search")).toBe(binary);
    await expect.poll(() => page.locator(".search-result").innerText()).toMatch(/% of everything/);
    await expect.poll(() => page.locator(".stacks").count()).toBe(0);
  });

  it("shows the results of the second unwinder, in total and by program", async () => {
    const page = await openGraph("/?tz=utc");
    await openPanel(page);
    const { checks } = await readStacks();
    expect(checks.differed).toBeGreaterThan(0);
    const line = page.locator("section[aria-labelledby=check-title]");
    expect(await line.innerText()).toContain(`${formatCount(checks.agreed + checks.differed)} stacks were checked`);
    expect(await line.innerText()).toContain(`${formatPercent(checks.agreed / (checks.agreed + checks.differed))} agree`);
    await page.getByRole("button", { name: "By program" }).click();
    expect(await line.locator("tbody tr").count()).toBe(checks.count);
    await page.locator(".stacks-popover .popover-panel").evaluate((panel) => panel.scrollTo({ top: panel.scrollHeight }));
    await saveShot(page, "stacks-panel-check");
  });

  for (const [theme, width, height] of [["dark", 1280, 800], ["light", 3840, 2000], ["dark", 700, 900]] as const) {
    it(`fits a window of ${width} pixels in ${theme} colours`, async () => {
      const page = await openGraph(`/?tz=utc&theme=${theme}`, { context: { viewport: { width, height } } });
      await openPanel(page);
      const panel = (await page.locator(".stacks-popover .popover-panel").boundingBox())!;
      expect([panel.x >= 0, panel.x + panel.width <= width]).toEqual([true, true]);
      expect(await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth)).toBeLessThanOrEqual(0);
      await saveShot(page, `stacks-panel-${theme}-${width}`);
    });
  }

  it("shows when all stacks are complete and none was checked", async () => {
    const page = await openGraph(KNOWN);
    await openPanel(page);
    expect(await page.locator(".stacks-share").innerText()).toBe("100 %");
    expect(await page.locator(".stops").count()).toBe(0);
    expect(await page.locator(".stacks").innerText()).toContain("No stack of this selection was checked");
    await saveShot(page, "stacks-panel-complete");
  });

  it("requests again when the selection changes, and keeps the last answer when the request fails", async () => {
    const page = await openGraph("/?tz=utc");
    await page.evaluate(() => history.pushState(null, "", `?tz=utc&query=${encodeURIComponent('{comm="rustc"}')}`));
    await openPanel(page);
    const share = await page.locator(".stacks-share").innerText();
    // Use the history, since a click would close the panel.
    await page.goBack();
    await page.goForward();
    await expect.poll(() => askedStacks().length).toBeGreaterThan(1);
    await expect.poll(() => page.locator(".stacks-share").innerText()).not.toBe(share);
    expect(new URL(askedStacks().at(-1)!, "http://x").searchParams.get("query")).toBe('{comm="rustc"}');
    await page.route("**/api/v1/stacks?*", (route) => route.abort());
    await page.goBack();
    await expect.poll(() => page.locator(".stacks [role=alert]").innerText()).toContain("Not up to date");
    expect(await page.locator(".stacks-share").count()).toBe(1);
    opened().errors.length = 0; // The browser says that the request failed, as it should.
    await page.keyboard.press("Escape");
    await expect.poll(() => page.locator(".stacks").count()).toBe(0);
  });
});

describe.skipIf(!hasChromium())("folded recursion", () => {
  const { openGraph, opened } = usePages();

  it("draws a function that calls itself as one box, with exact times, and unfolds again", async () => {
    const page = await openGraph(WALK);
    expect(await page.locator(".fold-hint").innerText()).toBe("visit_tree ×120");
    await saveShot(page, "recursion-unfolded");
    const toggle = page.getByRole("button", { name: "Fold recursion" });
    await toggle.click();
    await expect.poll(() => field(page, "fold")).toBe("recursion");
    await canvasData(page);
    await expect.poll(() => page.locator(".fold-hint").count()).toBe(0);
    // The chain has all of the time; one box below it has all callees of its levels.
    expect(await hoverBox(page, 0.5, 2)).toMatch(/^visit_tree ×120 .* up to 120 levels in a row.* Total .* 100 % of everything selected Self 0 s/);
    expect(await hoverBox(page, 0.5, 3)).toMatch(/^compare .* Total .* 100 % of everything selected Self .* 100 %/);
    await saveShot(page, "recursion-folded");
    await clickBox(page, 0.5, 3);
    await expect.poll(() => field(page, "zoom")).toBe('["main","visit_tree","compare"]');
    await toggle.click();
    await expect.poll(() => field(page, "fold")).toBeNull();
    expect(field(page, "zoom")).toBe('["main","visit_tree","compare"]');
  });

  for (const theme of ["light", "dark"]) {
    it(`looks like one tool with the rest in ${theme} colours`, async () => {
      const page = await openGraph(`${WALK}&fold=recursion&theme=${theme}&panels=both`);
      await canvasData(page);
      await saveShot(page, `recursion-folded-${theme}`);
      await page.getByRole("button", { name: "Fold recursion" }).click();
      await canvasData(page);
      await saveShot(page, `recursion-unfolded-${theme}`);
      expect(await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth)).toBeLessThanOrEqual(0);
    });
  }

  it("finds the same share folded and unfolded, and zooms by a URL of the other form", async () => {
    const zoom = encodeURIComponent(JSON.stringify(["main", ...Array.from({ length: 40 }, () => "visit_tree")]));
    const page = await openGraph(`${WALK}&fold=recursion&search=compare&zoom=${zoom}`);
    const result = page.locator(".search-result");
    await expect.poll(() => result.innerText()).toBe("100 % of everything · 1 box");
    expect(await page.locator(".crumbs button[aria-current]").innerText()).toBe("visit_tree ×40");
    await page.getByRole("button", { name: "Fold recursion" }).click();
    await expect.poll(() => result.innerText()).toBe("100 % of everything · 120 boxes");
  });

  it("fetches cut nodes below all levels, the largest first", async () => {
    const page = await openGraph(`${WALK}&fold=recursion`, { fixture: { maxNodes: 60 } });
    const readLevels = async (): Promise<number> => Number(/^visit_tree ×(\d+)/.exec(await hoverBox(page, 0.5, 2))?.[1]);
    const before = await readLevels();
    expect(before).toBeGreaterThan(20);
    expect(await hoverBox(page, 0.5, 3)).toMatch(/smaller boxes Left out of this graph/);
    await clickBox(page, 0.5, 3);
    await expect.poll(readLevels).toBeGreaterThan(before);
    // The largest cut part is below the last level of the tree.
    const path = new URL(opened().server.asked.find((url) => url.includes("path="))!, "http://x").searchParams.get("path")!;
    expect(JSON.parse(path)).toEqual(["main", ...Array.from({ length: before }, () => "visit_tree")]);
  });

  it("has nothing to fold without direct recursion", async () => {
    const page = await openGraph(KNOWN);
    expect(await page.getByRole("button", { name: "Fold recursion" }).isDisabled()).toBe(true);
  });
});
