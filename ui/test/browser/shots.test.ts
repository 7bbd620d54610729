// Screenshots of the page in both widths and both themes, for people to look at. Also checks that
// the page has no horizontal overflow and no errors.
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Browser } from "playwright-core";
import { hasChromium, launchBrowser, openPage, saveShot, waitForGraph } from "./browser.ts";

describe.skipIf(!hasChromium())("screenshots", () => {
  let browser: Browser;
  beforeAll(async () => {
    browser = await launchBrowser();
  });
  afterAll(() => browser?.close());

  for (const theme of ["light", "dark"] as const) {
    for (const [width, height] of [[1280, 800], [3840, 2000]] as const) {
      it(`${theme} at ${width} pixels fits its width`, async () => {
        const opened = await openPage(browser, { address: `/?tz=utc&theme=${theme}`, context: { viewport: { width, height } } });
        try {
          await waitForGraph(opened.page);
          await saveShot(opened.page, `${theme}-${width}`);
          const overflow = await opened.page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
          expect(overflow).toBeLessThanOrEqual(0);
          expect(opened.errors).toEqual([]);
        } finally {
          await opened.close();
        }
      });
    }
  }
});
