// Measures the flame graph with a million nodes in a real browser: the time from
// the answer's last byte to the first picture, and the frames while panning and
// zooming. It prints what it finds beside the machine's load: without a graphics
// card the browser fills each pixel itself, which at 3840 pixels takes longer than
// all that the page does. It fails when the page's own share misses DESIGN.md's figures.
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { cpus, loadavg } from "node:os";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Browser, Page } from "playwright-core";
import { createFixtureHandler } from "../fixture/handler.ts";
import { DIST, hasChromium, launchBrowser, NOW_MS, saveShot } from "../browser/browser.ts";
import { readFileSync } from "node:fs";
import { extname, join } from "node:path";
import { makeLargeTree } from "./large-tree.ts";

const NODES = Number(process.env["BENCH_NODES"] ?? 1_000_000);

/** The promises of DESIGN.md. */
const FIRST_PAINT_MS = 200;
const FRAME_MS = 1000 / 60;

/** How much longer the first picture may take on a machine that others use too. */
const SLACK = 4;

interface Frames {
  count: number;
  meanMs: number;
  p95Ms: number;
  workMs: number;
}

/** Runs `act` once a frame and measures the frames; `workMs` is the mean time that our own drawing took in each. */
async function measureFrames(page: Page, act: "pan" | "zoom"): Promise<Frames> {
  return page.evaluate(async (kind) => {
    const canvas = document.querySelector<HTMLCanvasElement>(".flame-canvas")!;
    const box = canvas.getBoundingClientRect();
    const wheel = (init: WheelEventInit): void => {
      canvas.dispatchEvent(new WheelEvent("wheel", { bubbles: true, cancelable: true, clientX: box.left + box.width * 0.3, clientY: box.top + 200, ...init }));
    };
    // Start from a view that is zoomed in a little, so that there is somewhere to pan to.
    for (let step = 0; step < 3; step += 1) wheel({ ctrlKey: true, deltaY: -120 });
    const times: number[] = [];
    const work: number[] = [];
    let last = performance.now();
    for (let frame = 0; frame < 120; frame += 1) {
      // The page's own painting is asked for in the wheel's listener, so it runs between these two.
      let begin = 0;
      requestAnimationFrame(() => (begin = performance.now()));
      if (kind === "pan") wheel({ deltaX: frame % 60 < 30 ? 14 : -14 });
      else wheel({ ctrlKey: true, deltaY: frame % 60 < 30 ? -60 : 60 });
      await new Promise<void>((resolve) => {
        requestAnimationFrame(() => {
          work.push(performance.now() - begin);
          resolve();
        });
      });
      times.push(performance.now() - last);
      last = performance.now();
    }
    const sorted = [...times].sort((a, b) => a - b);
    const mean = (list: number[]): number => list.reduce((sum, value) => sum + value, 0) / list.length;
    return { count: times.length, meanMs: mean(times), p95Ms: sorted[Math.floor(sorted.length * 0.95)]!, workMs: mean(work) };
  }, act);
}

const TYPES: Record<string, string> = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml" };

describe.skipIf(!hasChromium())(`a flame graph of ${NODES} nodes`, () => {
  let browser: Browser;
  let server: Server;
  let url: string;
  let bytes = 0;

  beforeAll(async () => {
    const body = JSON.stringify(makeLargeTree(NODES));
    bytes = body.length;
    const handle = createFixtureHandler({ nowMs: NOW_MS });
    server = createServer((request, response) => {
      const path = new URL(request.url!, "http://bench").pathname;
      if (path === "/api/v1/flamegraph") {
        response.setHeader("content-type", "application/json");
        response.setHeader("date", new Date(NOW_MS).toUTCString());
        response.end(body);
      } else if (!handle(request, response)) {
        const file = path === "/" ? "index.html" : path;
        response.setHeader("content-type", TYPES[extname(file)] ?? "text/plain");
        response.end(readFileSync(join(DIST, file)));
      }
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    browser = await launchBrowser();
  });
  afterAll(async () => {
    await browser?.close();
    server?.close();
  });

  for (const [width, height] of [[1280, 800], [3840, 2000]] as const) {
    it(`at ${width} pixels`, async () => {
      const page = await browser.newPage({ viewport: { width, height } });
      await page.goto(`${url}/?tz=utc&panels=graph`);
      await page.locator(".flame-canvas").waitFor({ timeout: 60_000 });
      await page.waitForTimeout(1500);
      const marks = await page.evaluate(() =>
        Object.fromEntries(performance.getEntriesByType("measure").filter(({ name }) => name.startsWith("flame:")).map(({ name, duration }) => [name, duration])),
      );
      const pan = await measureFrames(page, "pan");
      const zoom = await measureFrames(page, "zoom");
      await saveShot(page, `million-${width}`);
      const line = (name: string, { meanMs, p95Ms, workMs }: Frames): string =>
        `${name}: ${(1000 / meanMs).toFixed(0)} frames a second, frame mean ${meanMs.toFixed(1)} ms, 95 % within ${p95Ms.toFixed(1)} ms, of which our work ${workMs.toFixed(1)} ms`;
      console.log(
        [
          `${NODES} nodes, ${(bytes / 1e6).toFixed(0)} MB of JSON, ${width}x${height}, ${cpus().length} CPUs, load ${loadavg()[0]!.toFixed(1)}`,
          ...Object.entries(marks).map(([name, ms]) => `  ${name} ${ms.toFixed(0)} ms`),
          `  ${line("pan", pan)}`,
          `  ${line("zoom", zoom)}`,
        ].join("\n"),
      );
      expect(marks["flame:data to picture"]).toBeLessThan(FIRST_PAINT_MS * SLACK);
      expect(pan.workMs).toBeLessThan(FRAME_MS);
      expect(zoom.workMs).toBeLessThan(FRAME_MS);
      await page.close();
    });
  }
});
