// The page in a real browser with the fixture server: the table of containers, and the banner of a
// server that stores no windows.
import { describe, expect, it } from "vitest";
import { hasChromium, saveShot, waitForGraph } from "./browser.ts";
import { field, KNOWN, usePages } from "./pages.ts";

const TABLE = "/?tz=utc&panels=containers";

describe.skipIf(!hasChromium())("containers", () => {
  const { open, openGraph, opened } = usePages();

  it("opens from the panels' buttons, where a dot tells of throttling", async () => {
    const page = await openGraph("/?tz=utc");
    const button = page.getByRole("button", { name: "Containers" });
    expect(await button.locator(".warn-dot").getAttribute("title")).toMatch(/^CPU limits stopped containers for [\d.]+ s$/);
    await button.click();
    await expect.poll(() => page.locator(".accounts-row").count()).toBeGreaterThan(5);
    expect(field(page, "panels")).toBe("containers");
    expect(await page.locator(".flame-canvas").count()).toBe(0);
  });

  it("sorts by each column, with the largest first", async () => {
    const page = await open({ address: TABLE });
    const first = page.locator(".accounts tbody tr").nth(1);
    await expect.poll(() => first.innerText()).toContain("ci-runner.service");
    expect(await page.locator(".accounts [aria-sort=descending]").innerText()).toBe("CPU time");
    await page.getByRole("button", { name: "Throttled" }).click();
    await expect.poll(() => first.innerText()).toContain("cart-7d9f8b6c5-x2k4q");
    expect(await first.locator(".accounts-throttled").innerText()).toMatch(/^[\d.]+ s$/);
    expect(field(page, "csort")).toBe("throttled");
    await page.getByRole("button", { name: "Excluded" }).click();
    await expect.poll(() => first.innerText()).toContain("secrets-0");
    expect(await first.innerText()).toContain("412");
    // The same order again from the URL.
    await page.reload();
    await expect.poll(() => first.innerText()).toContain("secrets-0");
    await page.getByRole("button", { name: "Ratio" }).click();
    const ratios = async (): Promise<number[]> => (await page.locator(".accounts tbody tr:not(.accounts-total) td:nth-last-child(2)").allInnerTexts()).map((text) => (text === "–" ? -1 : parseFloat(text)));
    await expect.poll(async () => (await ratios())[0]).toBeGreaterThan(100);
    expect(await ratios()).toEqual((await ratios()).sort((a, b) => b - a));
    expect((await ratios()).at(-1)).toBe(-1);
  });

  it("selects a container on a click, and shows its graph; back returns", async () => {
    const page = await open({ address: TABLE });
    await page.locator(".accounts-row", { hasText: "db-0" }).click({ position: { x: 300, y: 8 } });
    await waitForGraph(page);
    expect(field(page, "query")).toBe('{namespace="shop", pod="db-0", container="postgres"}');
    expect(field(page, "panels")).toBeNull();
    await page.goBack();
    await expect.poll(() => page.locator(".accounts-row").count()).toBeGreaterThan(5);
    await page.locator(".accounts-row", { hasText: "ssh.service" }).first().click();
    await waitForGraph(page);
    expect(field(page, "query")).toMatch(/^{node="node-[ab]", unit="ssh\.service"}$/);
  });

  it("can be used with the keyboard alone", async () => {
    const page = await open({ address: TABLE });
    await page.locator(".accounts-row").first().waitFor();
    await page.getByRole("button", { name: "Throttled" }).focus();
    await page.keyboard.press("Enter");
    await expect.poll(() => page.locator(".accounts tbody tr").nth(1).innerText()).toContain("cart-7d9f8b6c5-x2k4q");
    for (let presses = 0; presses < 10; presses += 1) {
      await page.keyboard.press("Tab");
      if (await page.evaluate(() => document.activeElement?.closest(".accounts-row"))) break;
    }
    await page.keyboard.press("Enter");
    await waitForGraph(page);
    expect(field(page, "query")).toBe('{namespace="shop", pod="cart-7d9f8b6c5-x2k4q", container="cart"}');
  });

  it("does not select a pod that has no samples, and shows it although the profile is empty", async () => {
    const page = await open({ address: `${TABLE}&query=${encodeURIComponent('{namespace="vault"}')}` });
    const rows = page.locator(".accounts tbody tr");
    await expect.poll(() => rows.nth(1).innerText()).toContain("secrets-0");
    expect(await page.locator(".accounts-row").count()).toBe(0);
    await rows.nth(1).click();
    expect(field(page, "query")).toBe('{namespace="vault"}');
  });

  it("names stolen time where more was sampled than the kernel has", async () => {
    const page = await open({ address: TABLE });
    await expect.poll(() => page.locator(".containers-note").innerText()).toContain("The hypervisor took 1 min 23 s");
    await page.goto(`${opened().server.url}${TABLE}&query=${encodeURIComponent('{node="node-a"}')}`);
    await page.locator(".accounts-row").first().waitFor();
    expect(await page.locator(".containers-note").count()).toBe(0);
    // One node: no column for it.
    expect(await page.locator(".accounts thead th").allInnerTexts()).toEqual(["Namespace", "Pod", "Container or unit", "CPU time", "Throttled", "Sampled", "Ratio", "Excluded"]);
  });

  it("says which matchers do not apply to whole containers", async () => {
    const page = await open({ address: `${KNOWN}&panels=containers` });
    await expect.poll(() => page.locator(".containers-note").first().innerText()).toContain('comm="known" does not apply here');
    await expect.poll(() => page.locator(".accounts-row").count()).toBeGreaterThan(5);
  });

  it("explains why there are no accounts", async () => {
    const page = await open({ address: TABLE, fixture: { noAccounts: true } });
    await expect.poll(() => page.locator(".containers").innerText()).toContain("has a CPU account");
    expect(await page.locator(".segments .warn-dot").count()).toBe(0);
    await saveShot(page, "containers-none");
  });

  for (const theme of ["light", "dark"] as const) {
    for (const [width, height] of [[1280, 800], [3840, 2000]] as const) {
      it(`fits ${width} pixels in ${theme} colours`, async () => {
        const page = await open({ address: `${TABLE}&theme=${theme}`, context: { viewport: { width, height } } });
        await page.locator(".accounts-row").first().waitFor();
        await saveShot(page, `containers-${theme}-${width}`);
        const overflow = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
        expect(overflow).toBeLessThanOrEqual(0);
      });
    }
  }
});

describe.skipIf(!hasChromium())("a server whose disk is full", () => {
  const { openGraph, open } = usePages();

  it("shows the profile and says that nothing is stored, and why", async () => {
    const page = await openGraph("/?tz=utc", { fixture: { diskFull: true } });
    const banner = page.getByRole("alert");
    expect(await banner.innerText()).toContain("The server stores no new profiles: the disk is full: `/data` has 1.0 MiB free");
    expect(await page.locator(".flame-canvas").count()).toBe(1);
    await saveShot(page, "disk-full");
    const dark = await open({ address: "/?tz=utc&theme=dark", fixture: { diskFull: true, empty: true } });
    await expect.poll(() => dark.getByRole("alert").innerText()).toContain("the disk is full");
    await saveShot(dark, "disk-full-empty-dark");
  });
});
