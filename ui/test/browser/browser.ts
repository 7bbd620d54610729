// A real browser for the tests: Debian's Chromium, headless, with a new profile each time. CHROMIUM
// names another one.
import { accessSync, constants, mkdirSync } from "node:fs";
import { chromium, type Browser, type BrowserContextOptions, type Page } from "playwright-core";
import { startFixtureServer, type FixtureOptions, type FixtureServer } from "../fixture/handler.ts";

const CHROMIUM = process.env["CHROMIUM"] ?? "/usr/bin/chromium";

/** A fixed time, so that data and screenshots are the same in each run. */
export const NOW_MS = Date.UTC(2026, 10, 23, 2, 15, 0);

export const DIST = new URL("../../dist", import.meta.url).pathname;
export const SHOTS = new URL("../shots", import.meta.url).pathname;

/** Whether a browser is installed. Prints a note if not, since the tests are then skipped. */
export function hasChromium(): boolean {
  try {
    accessSync(CHROMIUM, constants.X_OK);
    return true;
  } catch {
    console.warn(`no Chromium at ${CHROMIUM}: the browser tests are skipped (set CHROMIUM to its path)`);
    return false;
  }
}

export function launchBrowser(): Promise<Browser> {
  return chromium.launch({
    executablePath: CHROMIUM,
    headless: true,
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
}

export interface Opened {
  page: Page;
  server: FixtureServer;
  /** Errors of the page: exceptions, console errors, requests to other hosts. */
  errors: string[];
  close(): Promise<void>;
}

export interface OpenOptions {
  /** The path and query of the URL. */
  address?: string;
  fixture?: FixtureOptions;
  context?: BrowserContextOptions;
  /**
   * The page uses the real time, which differs from the server's by far. Without it, the page uses
   * the server's time, and need not request everything twice.
   */
  ownClock?: boolean;
}

/** Opens the built page with a fixture server of its own. */
export async function openPage(browser: Browser, { address = "/?tz=utc", fixture = {}, context = {}, ownClock = false }: OpenOptions = {}): Promise<Opened> {
  const server = await startFixtureServer(DIST, { nowMs: NOW_MS, ...fixture });
  const opened = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...context });
  if (!ownClock) await opened.addInitScript((now) => (Date.now = () => now), NOW_MS);
  const page = await opened.newPage();
  const errors: string[] = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("console", (message) => {
    if (message.type() === "error") errors.push(message.text());
  });
  page.on("request", (request) => {
    if (!request.url().startsWith(server.url)) errors.push(`asked ${request.url()}`);
  });
  await page.goto(server.url + address);
  return {
    page,
    server,
    errors,
    async close() {
      await opened.close();
      await server.close();
    },
  };
}

export async function waitForGraph(page: Page): Promise<void> {
  await page.locator("canvas.flame-canvas").waitFor();
  await page.locator(".functions .row-name").first().waitFor({ timeout: 20_000 }).catch(() => undefined);
  await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))));
}

export async function saveShot(page: Page, name: string): Promise<string> {
  mkdirSync(SHOTS, { recursive: true });
  const path = `${SHOTS}/${name}.png`;
  await page.screenshot({ path });
  return path;
}
