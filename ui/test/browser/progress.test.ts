// A question that takes long, in a real browser: the page shows how far the server is.
import { describe, expect, it } from "vitest";
import { hasChromium, saveShot, waitForGraph } from "./browser.ts";
import { KNOWN, usePages } from "./pages.ts";

describe.skipIf(!hasChromium())("a question that takes long", () => {
  const { open, openGraph } = usePages();

  it("shows the queue, then what is read, then the graph", async () => {
    const page = await open({ address: "/?tz=utc", fixture: { slowMs: 12_000 } });
    const status = page.locator(".question-progress");
    const text = (): Promise<string> => status.innerText();
    await expect.poll(text).toContain("Waiting for other queries: place 2 in the server's queue");
    await expect.poll(text).toMatch(/Reading profiles: \d+ of 24 segments/);
    const read = async (): Promise<number> => Number(/(\d+) of 24/.exec(await text())?.[1]);
    const first = await read();
    await expect.poll(read).toBeGreaterThan(Math.max(6, first));
    expect(await page.locator(".question-progress progress").getAttribute("value")).toMatch(/^0\.\d+/);
    await saveShot(page, "progress");
    await expect.poll(text).toContain("24 segments read, preparing the answer");
    await waitForGraph(page);
    expect(await status.count()).toBe(0);
  });

  it("stays away from an answer that comes soon", async () => {
    const page = await openGraph(KNOWN);
    expect(await page.locator(".question-progress").count()).toBe(0);
  });

  it("keeps the last profile on the page meanwhile", async () => {
    const page = await openGraph(KNOWN, { fixture: { slowMs: 3_000 } });
    await page.getByRole("button", { name: "Refresh" }).click();
    await page.locator(".question-progress").waitFor();
    expect(await page.locator("canvas.flame-canvas").count()).toBe(1);
    await saveShot(page, "progress-refresh");
    await page.locator(".question-progress").waitFor({ state: "detached" });
  });
});
