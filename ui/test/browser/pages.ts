// Shared by the browser tests: one browser per file, one page per test, pointing at boxes, and
// waiting for the graph.
import { afterAll, afterEach, beforeAll, expect } from "vitest";
import type { Browser, Page } from "playwright-core";
import { launchBrowser, openPage, waitForGraph, type Opened, type OpenOptions } from "./browser.ts";

export const KNOWN = `/?tz=utc&query=${encodeURIComponent('{comm="known"}')}`;
const ROW = 19;

export const field = (page: Page, name: string): string | null => new URL(page.url()).searchParams.get(name);

/** Moves the pointer to a share of the canvas's width in one row. */
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

/** The canvas's pixels after the zoom has ended and the full painting is done. */
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

/** Waits until the effects of the last event are painted. */
export const nextFrames = (page: Page): Promise<void> =>
  page.evaluate(() => new Promise<void>((resolve) => requestAnimationFrame(() => requestAnimationFrame(() => resolve()))));

export interface Pages {
  open(options?: OpenOptions): Promise<Page>;
  /** Also waits for the flame graph. */
  openGraph(address: string, options?: OpenOptions): Promise<Page>;
  /** The page and server of the running test. */
  opened(): Opened;
}

/**
 * Call within `describe`. Closes each test's page after the test, and fails the test if the page
 * had errors.
 */
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
