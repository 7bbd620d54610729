// A real browser for the tests: Debian's Chromium without a window, a fresh
// profile each time. CHROMIUM names another one.
import { accessSync, constants, mkdirSync } from "node:fs";
import { chromium, type Browser, type BrowserContextOptions, type Page } from "playwright-core";
import { startFixtureServer, type FixtureOptions, type FixtureServer } from "../fixture/handler.ts";

const CHROMIUM = process.env["CHROMIUM"] ?? "/usr/bin/chromium";

/** A fixed moment, so that the made-up data and the pictures are the same each time. */
export const NOW_MS = Date.UTC(2026, 10, 23, 2, 15, 0);

export const DIST = new URL("../../dist", import.meta.url).pathname;
export const SHOTS = new URL("../shots", import.meta.url).pathname;

/** Whether there is a browser; says so when not, since the tests then count as skipped. */
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
  /** Errors of the page: exceptions, console errors, requests to elsewhere. */
  errors: string[];
  close(): Promise<void>;
}

export interface OpenOptions {
  /** The part of the address after the origin. */
  address?: string;
  fixture?: FixtureOptions;
  context?: BrowserContextOptions;
  /** Lets the page have the real time, which is far from the server's; else it has the server's, and need not ask twice. */
  ownClock?: boolean;
}

/** Opens the built page over a fixture server of its own. */
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

/** Waits until the flame graph has been drawn. */
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
