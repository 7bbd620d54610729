// The page in a real browser with the fixture server: function table, chart, and the controls for
// range, filters, colours and exports.
import { execFileSync } from "node:child_process";
import { describe, expect, it } from "vitest";
import { hasChromium, NOW_MS, saveShot } from "./browser.ts";
import { field, KNOWN, usePages } from "./pages.ts";

describe.skipIf(!hasChromium())("the page's controls", () => {
  const { openGraph, opened } = usePages();

  it("sorts, filters and scrolls a long table with few rows in the document", async () => {
    const page = await openGraph("/?tz=utc");
    const rows = page.locator(".functions .row:not(.row-head)");
    expect(await rows.count()).toBeLessThan(60);
    expect(Number(await page.getByRole("grid").getAttribute("aria-rowcount"))).toBeGreaterThan(500);
    await page.getByRole("button", { name: "Total" }).click();
    await expect.poll(() => page.locator(".row-name").first().innerText()).toBe("__libc_start_call_main");
    expect(field(page, "sort")).toBe("total");
    await page.getByRole("grid").evaluate((grid) => grid.scrollTo({ top: 26 * 450 }));
    await expect.poll(() => opened().server.asked.some((url) => url.includes("offset=400"))).toBe(true);
    await expect.poll(() => page.locator("#function-450 .row-name").count()).toBe(1);
    await page.getByLabel("Filter functions").fill("libllvm");
    await expect.poll(() => field(page, "filter")).toBe("libllvm");
    await expect.poll(() => page.locator(".row-binary").allInnerTexts()).toSatisfy((texts: string[]) => texts.length > 5 && texts.every((text) => text.startsWith("libLLVM")));
    await rows.first().click();
    await expect.poll(() => field(page, "search")).toMatch(/^=.* @ \/usr\/lib\/libLLVM/);
    await expect.poll(() => page.locator(".row-marked").count()).toBe(1);
    await expect.poll(() => page.locator(".search-result").innerText()).toMatch(/% of everything/);
  });

  it("shows eight series and the sum of the others, and zooms the range by a drag", async () => {
    const page = await openGraph("/?tz=utc");
    const legend = page.locator(".legend li");
    expect(await legend.count()).toBe(9);
    expect(await legend.last().innerText()).toContain("8 others");
    const plot = (await page.locator(".u-over").boundingBox())!;
    await page.mouse.move(plot.x + plot.width * 0.2, plot.y + 40);
    await page.mouse.down();
    await page.mouse.move(plot.x + plot.width * 0.4, plot.y + 50, { steps: 5 });
    await page.mouse.up();
    await expect.poll(() => field(page, "from")).toMatch(/^2026-11-23T02:0[23]:\d0Z$/);
    const [from, to] = [Date.parse(field(page, "from")!), Date.parse(field(page, "to")!)];
    expect(to - from).toBeGreaterThanOrEqual(180_000);
    expect(to - from).toBeLessThanOrEqual(200_000);
    await page.locator(".legend button").first().click();
    await expect.poll(() => field(page, "query")).toBe('{comm="rustc"}');
    await page.locator(".chip-close").click();
    await expect.poll(() => field(page, "query")).toBeNull();
  });

  it("filters by a label's values, shown with their CPU time", async () => {
    const page = await openGraph("/?tz=utc");
    await page.locator(".chip").getByText("node", { exact: true }).click();
    await expect.poll(() => page.locator(".value-name").allInnerTexts()).toEqual(["node-a", "node-b"]);
    await saveShot(page, "filter-menu");
    await page.getByRole("button", { name: "All but node-a" }).click();
    await expect.poll(() => field(page, "query")).toBe('{node!="node-a"}');
    await page.locator(".chip-text").click();
    await expect.poll(() => field(page, "query")).toBe('{node="node-a"}');
  });

  it("accepts typed times, and shows errors in them", async () => {
    const page = await openGraph("/?tz=utc");
    await page.getByTitle("Choose the time range").click();
    expect(await page.locator(".times-kept").innerText()).toContain("Kept for 30 d, up to 20.0 GiB; the oldest are evicted first.");
    await page.getByLabel("From", { exact: true }).fill("yesterday");
    await page.getByRole("button", { name: "Apply" }).click();
    await expect.poll(() => page.locator(".field-error").innerText()).toContain("now-15m");
    await saveShot(page, "time-picker");
    await page.getByLabel("From", { exact: true }).fill("2026-11-23 01:00");
    await page.getByLabel("To", { exact: true }).fill("1795399200");
    await page.getByRole("button", { name: "Apply" }).click();
    await expect.poll(() => [field(page, "from"), field(page, "to")]).toEqual(["2026-11-23T01:00:00Z", "2026-11-23T02:00:00Z"]);
    await page.getByRole("button", { name: "5m", exact: true }).click();
    await expect.poll(() => field(page, "from")).toBe("now-5m");
  });

  it("follows the server's clock and requests everything for one range", async () => {
    await openGraph("/?tz=utc", { ownClock: true });
    const ranges = new Set(opened().server.asked.filter((url) => url.includes("from=")).slice(-4).map((url) => {
      const fields = new URL(url, "http://x").searchParams;
      return `${fields.get("from")} ${fields.get("to")}`;
    }));
    expect(ranges.size).toBe(1);
    const to = Number([...ranges][0]!.split(" ")[1]);
    // The `Date` header has whole seconds, and the test machine may be busy.
    expect(Math.abs(to - NOW_MS)).toBeLessThan(30_000);
  });

  it("offers the same selection to go tool pprof, quoted for the shell", async () => {
    const page = await openGraph(`/?tz=utc&query=${encodeURIComponent(`{comm!="it's $(odd)"}`)}`);
    await page.getByRole("button", { name: "pprof" }).click();
    const command = await page.locator(".command code").innerText();
    expect(command).toMatch(/^go tool pprof /);
    const url = new URL(execFileSync("/bin/sh", ["-c", `printf %s ${command.replace("go tool pprof ", "")}`], { encoding: "utf8" }));
    expect(url.pathname).toBe("/api/v1/pprof");
    expect(url.searchParams.get("query")).toBe(`{comm!="it's $(odd)"}`);
    expect(Number(url.searchParams.get("to")) - Number(url.searchParams.get("from"))).toBe(900_000);
    const svg = await page.locator(".exports a").first().getAttribute("href");
    expect(svg).toContain("/api/v1/flamegraph.svg?query=");
  });

  it("works below a path prefix", async () => {
    const pathPrefix = "/team/profiles";
    const page = await openGraph(`${pathPrefix}/?tz=utc`, { fixture: { pathPrefix } });
    await page.locator(".legend button").first().click();
    await expect.poll(() => field(page, "query")).toBe('{comm="rustc"}');
    expect(new URL(page.url()).pathname).toBe(`${pathPrefix}/`);
    await page.getByRole("button", { name: "pprof" }).click();
    expect(await page.locator(".command code").innerText()).toContain(`${opened().server.url}${pathPrefix}/api/v1/pprof?`);
  });

  it("changes between light, dark and the system's colours", async () => {
    const page = await openGraph(KNOWN, { context: { colorScheme: "dark" } });
    const theme = (): Promise<string | null> => page.locator("html").getAttribute("data-theme");
    expect(await theme()).toBe("dark");
    await page.emulateMedia({ colorScheme: "light" });
    await expect.poll(theme).toBe("light");
    await page.locator(".theme").click();
    await page.locator(".theme").click();
    await expect.poll(theme).toBe("dark");
    expect(field(page, "theme")).toBe("dark");
    // Another visit uses the stored preferences.
    await page.goto(`${opened().server.url}/`);
    await expect.poll(theme).toBe("dark");
  });

  it("refreshes automatically if enabled", async () => {
    const page = await openGraph("/?tz=utc", { ownClock: true });
    await page.clock.install();
    await page.getByLabel("Refresh by itself").selectOption("10");
    const loads = (): number => opened().server.asked.filter((url) => url.includes("flamegraph")).length;
    const before = loads();
    await page.clock.fastForward(10_500);
    await expect.poll(loads).toBe(before + 1);
  });
});
