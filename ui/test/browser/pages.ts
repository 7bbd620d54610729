// What the browser tests share: one browser a file, one page a test, pointing at
// boxes, and waiting for the picture.
import { afterAll, afterEach, beforeAll, expect } from "vitest";
import type { Browser, Page } from "playwright-core";
import { launchBrowser, openPage, waitForGraph, type Opened, type OpenOptions } from "./browser.ts";

export const KNOWN = `/?tz=utc&query=${encodeURIComponent('{comm="known"}')}`;
const ROW = 19;

export const field = (page: Page, name: string): string | null => new URL(page.url()).searchParams.get(name);

/** Points at a share of the canvas's width in one row. */
async function pointAt(page: Page, share: number, row: number): Promise<{ x: number; y: number }> {
  const box = (await page.locator(".flame-canvas").boundingBox())!;
  return { x: box.x + box.width * share, y: box.y + (row + 0.5) * ROW };
}

export async function clickBox(page: Page, share: number, row: number): Promise<void> {
  const { x, y } = await pointAt(page, share, row);
  await page.mouse.click(x, y);
}

export async function hoverBox(page: Page, share: number, row: number): Promise<string> {
  const { x, y } = await pointAt(page, share, row);
  await page.mouse.move(x, y);
  return (await page.locator(".card").innerText()).replaceAll(/\s+/g, " ");
}

/** The canvas's picture once it stands: the zoom has arrived and the last painting was in full. */
export const canvasData = (page: Page): Promise<string> =>
  page.evaluate(async () => {
    const read = (): string => document.querySelector<HTMLCanvasElement>(".flame-canvas")!.toDataURL();
    let last = "";
    for (let now = read(); now !== last; now = read()) {
      last = now;
      await new Promise((resolve) => setTimeout(resolve, 400));
    }
    return last;
  });

/** Until what the last event changed is on the page. */
export const nextFrames = (page: Page): Promise<void> =>
  page.evaluate(() => new Promise<void>((resolve) => requestAnimationFrame(() => requestAnimationFrame(() => resolve()))));

export interface Pages {
  open(options?: OpenOptions): Promise<Page>;
  /** Waits for the flame graph too. */
  openGraph(address: string, options?: OpenOptions): Promise<Page>;
  /** What the test that runs has opened. */
  opened(): Opened;
}

/** Call within `describe`. Each test's page is closed after it, and must have had no errors. */
export function usePages(): Pages {
  let browser: Browser;
  let opened: Opened | undefined;
  beforeAll(async () => {
    browser = await launchBrowser();
  });
  afterAll(() => browser?.close());
  afterEach(async () => {
    const errors = opened?.errors ?? [];
    await opened?.close();
    opened = undefined;
    expect(errors).toEqual([]);
  });
  async function open(options: OpenOptions = {}): Promise<Page> {
    opened = await openPage(browser, options);
    return opened.page;
  }
  return {
    open,
    async openGraph(address, options = {}) {
      const page = await open({ address, ...options });
      await waitForGraph(page);
      return page;
    },
    opened: () => opened!,
  };
}
