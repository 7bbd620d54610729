// The page in a real browser with the fixture server: working with the flame graph.
import { describe, expect, it } from "vitest";
import { hasChromium, saveShot, waitForGraph } from "./browser.ts";
import { canvasData, clickBox, field, hoverBox, KNOWN, nextFrames, usePages } from "./pages.ts";

describe.skipIf(!hasChromium())("the page", () => {
  const { open, openGraph, opened } = usePages();

  it("zooms on a click, keeps percentages of the whole, and goes back", async () => {
    const page = await openGraph(KNOWN);
    expect(await hoverBox(page, 0.05, 2)).toMatch(/Total .* 30\.0 % of everything/);
    await clickBox(page, 0.05, 2);
    await expect.poll(() => field(page, "zoom")).toMatch(/^\["main","(hot|warm|warm_up)"\]$/);
    await canvasData(page);
    await expect.poll(() => hoverBox(page, 0.9, 2)).toMatch(/30\.0 % of everything selected 30\.0 % of its caller/);
    await page.locator(".crumbs").getByText("main", { exact: true }).click();
    await expect.poll(() => field(page, "zoom")).toBe('["main"]');
    await page.goBack();
    await page.goBack();
    await expect.poll(() => field(page, "zoom")).toBeNull();
    await expect.poll(() => page.locator(".crumbs").count()).toBe(0);
  });

  it("finds exactly the share of the stacks that match", async () => {
    const page = await openGraph(KNOWN);
    const search = page.getByLabel("Search the flame graph");
    const result = page.locator(".search-result");
    await search.fill("/^hot$/");
    await expect.poll(() => result.innerText()).toBe("60.0 % of everything · 2 boxes");
    await search.fill("WARM");
    await expect.poll(() => result.innerText()).toBe("60.0 % of everything · 3 boxes");
    await search.fill("/(/");
    await expect.poll(() => result.innerText()).toContain("(");
    await search.fill("no such function");
    await expect.poll(() => result.innerText()).toBe("No match");
  });

  it("shows the same page again from its URL", async () => {
    const zoom = encodeURIComponent('["__libc_start_main_impl","__libc_start_call_main","rustc_driver_impl::main"]');
    const address = `/?tz=utc&theme=dark&by=node&chart=lines&search=visit&sort=total&panels=both&zoom=${zoom}`;
    const page = await openGraph(address);
    const before = await canvasData(page);
    expect(await page.locator("html").getAttribute("data-theme")).toBe("dark");
    expect(await page.locator("[aria-sort=descending]").innerText()).toBe("Total");
    expect(await page.locator(".inline-field select").inputValue()).toBe("node");
    expect(await page.locator(".legend li").allInnerTexts()).toHaveLength(2);
    expect(await page.locator(".crumbs button[aria-current]").innerText()).toBe("rustc_driver_impl::main");
    const other = await opened().page.context().newPage();
    await other.goto(page.url());
    await waitForGraph(other);
    expect(await canvasData(other)).toBe(before);
  });

  it("can be used with the keyboard alone", async () => {
    const page = await openGraph(KNOWN);
    const live = page.locator(".flame [aria-live]");
    for (let presses = 0; presses < 60; presses += 1) {
      await page.keyboard.press("Tab");
      if (await page.evaluate(() => document.activeElement?.matches(".flame-canvas"))) break;
    }
    await expect.poll(() => live.textContent()).toContain("All stacks");
    await page.keyboard.press("ArrowDown");
    await expect.poll(() => live.textContent()).toContain("main, in /usr/bin/known, User code, total 100 %");
    for (const key of ["ArrowDown", "ArrowRight", "ArrowRight", "ArrowRight"]) {
      await page.keyboard.press(key);
      await nextFrames(page);
    }
    await expect.poll(() => live.textContent()).toContain("cold");
    expect(await page.locator(".card").innerText()).toContain("known.c:12");
    await page.keyboard.press("Enter");
    await expect.poll(() => field(page, "zoom")).toBe('["main","cold"]');
    await page.keyboard.press("Escape");
    await expect.poll(() => field(page, "zoom")).toBeNull();
    await page.keyboard.press("Shift+F10");
    await expect.poll(() => page.locator("[role=menu]").count()).toBe(1);
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("Enter");
    await expect.poll(() => field(page, "search")).toBe("=cold @ /usr/bin/known");
    await page.keyboard.press("/");
    expect(await page.evaluate(() => document.activeElement?.id)).toBe("flame-search");
    await page.getByRole("grid").focus();
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("Enter");
    await expect.poll(() => field(page, "search")).toMatch(/^=\w+ @ \/usr\/bin\/known$/);
  });

  it("completes labels and values from the server's", async () => {
    const page = await openGraph("/?tz=utc");
    const input = page.getByRole("combobox", { name: "Selector" });
    await input.fill("{no");
    await expect.poll(() => page.locator(".candidate").allInnerTexts()).toEqual(["node"]);
    expect(await input.getAttribute("aria-expanded")).toBe("true");
    await page.keyboard.press("Tab");
    await expect.poll(() => page.locator(".candidate").allInnerTexts()).toEqual(["node-a", "node-b"]);
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("ArrowDown");
    const active = await input.getAttribute("aria-activedescendant");
    expect(await page.locator(`[id="${active}"]`).innerText()).toBe("node-b");
    await page.keyboard.press("Enter");
    expect(await input.inputValue()).toBe('{node="node-b"}');
    await page.keyboard.press("Enter");
    await expect.poll(() => field(page, "query")).toBe('{node="node-b"}');
    // Values are requested with the other matchers.
    await input.fill('{exe="/usr/bin/known", comm="');
    await expect.poll(() => page.locator(".candidate").allInnerTexts()).toEqual(["known"]);
    await page.keyboard.press("Escape");
    await expect.poll(() => page.locator(".candidate").count()).toBe(0);
    await page.keyboard.press("Escape");
    expect(await input.inputValue()).toBe('{node="node-b"}');
  });

  it("shows the server's error at its position, and keeps the profile", async () => {
    const page = await openGraph("/?tz=utc");
    const input = page.getByRole("combobox", { name: "Selector" });
    await input.fill('{exe!="ü🔥", comm=~"("}');
    await page.keyboard.press("Enter");
    const alert = page.locator(".selector-error");
    await expect.poll(() => alert.innerText()).toContain("the regular expression of comm cannot be read");
    expect(await alert.innerText()).toContain("at character 20");
    expect(await alert.innerText()).toContain("escape (");
    expect(await page.locator(".selector-wrong").innerText()).toBe("(");
    expect(await input.getAttribute("aria-invalid")).toBe("true");
    expect(await page.locator(".flame-canvas").count()).toBe(1);
    await saveShot(page, "wrong-selector");
    opened().errors.length = 0; // Chromium logs each answer of status 400.
    await input.fill("{}");
    await page.keyboard.press("Enter");
    await expect.poll(() => alert.count()).toBe(0);
  });

  it("shows the next steps when the store is empty", async () => {
    const page = await open({ address: "/?tz=utc", fixture: { empty: true } });
    await expect.poll(() => page.locator(".notice").innerText()).toContain("No profiles yet");
    expect(await page.locator(".notice").innerText()).toContain("make run");
    await saveShot(page, "empty-store");
  });

  it("shows why the nodes that reported do not sample", async () => {
    const page = await open({ address: "/?tz=utc", fixture: { empty: true, cannotSample: true } });
    await expect.poll(() => page.locator(".notice").innerText()).toContain("node-z: cannot sample");
    expect(await page.locator(".notice").innerText()).toContain("CAP_PERFMON: missing; no process can be sampled; add it");
    await saveShot(page, "cannot-sample");
    const beside = await openGraph(KNOWN, { fixture: { cannotSample: true } });
    await beside.locator(".summary .warn-dot").first().click();
    await expect.poll(() => beside.locator(".facts").innerText()).toContain("CAP_PERFMON is missing");
    await saveShot(beside, "node-statuses");
  });

  it("shows which windows could not be read, beside the profile and in place of an empty one", async () => {
    const page = await openGraph(KNOWN, { fixture: { unread: true } });
    const button = page.locator(".unread-popover > button");
    expect(await button.innerText()).toContain("3 windows");
    await button.click();
    const rows = page.locator(".unread-popover tbody tr");
    expect(await rows.first().locator(".number").allInnerTexts()).toEqual(["2", "340 ms"]);
    expect(await rows.last().innerText()).toContain("No such file or directory");
    await saveShot(page, "not-read");
    const none = await open({ address: "/?tz=utc", fixture: { unread: true, empty: true } });
    await expect.poll(() => none.locator(".notice").innerText()).toContain("could not be read");
    expect(await none.locator(".notice").innerText()).toContain("a section's checksum is wrong");
  });

  for (const theme of ["light", "dark"]) {
    it(`shows which pods a policy excludes and why, ${theme}`, async () => {
      const page = await openGraph(`${KNOWN}&theme=${theme}`, { fixture: { policy: true } });
      await page.getByRole("button", { name: "33 pods" }).click();
      const panel = page.locator(".excluded-popover .popover-panel");
      await expect.poll(() => panel.innerText()).toContain("checkout/cart-5d9c7b6f4d-x2x7q");
      const text = await panel.innerText();
      expect(text.indexOf("rule 2: deny namespaces payments, secret-*")).toBeLessThan(text.indexOf("rule 1: deny pod_annotations"));
      expect(text).toContain("and 2 pods more");
      await saveShot(page, `excluded-pods-${theme}`);
      await page.keyboard.press("Escape");
      await page.locator(".summary .warn-dot").first().click();
      await expect.poll(() => page.locator(".facts").innerText()).toContain("the policy of ConfigMap profiling/");
      await saveShot(page, `policy-mistake-${theme}`);
    });
  }

  it("shows which matcher selects nothing, and removes it", async () => {
    const query = encodeURIComponent('{comm="known", node="gone"}');
    const page = await open({ address: `/?tz=utc&query=${query}` });
    await expect.poll(() => page.locator(".notice-list").innerText()).toBe('node="gone"');
    await page.getByRole("button", { name: "Remove it" }).click();
    await waitForGraph(page);
    expect(field(page, "query")).toBe('{comm="known"}');
  });

  it("shows when only the combination of matchers is empty, and where data is if the range is empty", async () => {
    const query = encodeURIComponent('{comm="known", exe="/usr/bin/bash"}');
    const page = await open({ address: `/?tz=utc&query=${query}` });
    await expect.poll(() => page.locator(".notice").innerText()).toContain("no series matches all of them");
    await page.goto(`${opened().server.url}/?tz=utc&from=2020-01-01T00:00:00Z&to=2020-01-02T00:00:00Z`);
    await expect.poll(() => page.locator(".notice").innerText()).toContain("2026-11-22 02:15:00 – 2026-11-23 02:14:50");
    await page.getByRole("button", { name: "Show the last 15 minutes" }).click();
    await waitForGraph(page);
    expect(field(page, "to")).toBe("2026-11-23T02:15:00Z");
  });

  it("keeps the last profile while the server is unreachable, and continues afterwards", async () => {
    const page = await openGraph(KNOWN);
    opened().server.away = true;
    await page.getByRole("button", { name: "Refresh" }).click();
    await expect.poll(() => page.locator(".banner-unreachable").innerText()).toContain("does not answer");
    expect(await hoverBox(page, 0.5, 1)).toContain("main");
    opened().server.away = false;
    await page.getByRole("button", { name: "Try now" }).click();
    await expect.poll(() => page.locator(".banner-unreachable").count()).toBe(0);
    opened().errors.length = 0; // Chromium logs each connection that broke.
  });

  it("shows hostile names as text", async () => {
    const page = await openGraph(`/?tz=utc&query=${encodeURIComponent('{comm="hostile"}')}`);
    const names = await page.locator(".row-name").allInnerTexts();
    expect(names.some((name) => name.startsWith("<img src=x"))).toBe(true);
    expect(names.some((name) => name.startsWith("</script>"))).toBe(true);
    expect(names).toContain("(no name)");
    expect(names.join("")).not.toMatch(/[\u202a-\u202e]/);
    expect(await page.locator("main img, main script").count()).toBe(0);
    for (let at = 0; at < 10; at += 1) await hoverBox(page, 0.05 + at / 10, 2);
    const box = (await page.locator(".card").boundingBox())!;
    expect(box.width).toBeLessThan(600);
    await page.getByLabel("Search the flame graph").fill("<img");
    await expect.poll(() => page.locator(".search-result").innerText()).toContain("1 box");
    expect(await page.title()).toBe("Pilotlight");
    await saveShot(page, "hostile");
  });

  it("draws cut nodes as one box, and fetches them on a click", async () => {
    const page = await openGraph("/?tz=utc", { fixture: { maxNodes: 300 } });
    const head = page.locator(".flame .panel-head");
    const hatched = async (): Promise<number> => Number(/([\d.]+) % hatched/.exec(await head.innerText())?.[1] ?? 0);
    const before = await hatched();
    expect(before).toBeGreaterThan(1);
    await page.getByLabel("Search the flame graph").fill("visit");
    await expect.poll(() => page.locator(".search-result").innerText()).toContain("at least ");
    const asked = (): string[] => opened().server.asked.filter((url) => url.includes("flamegraph") && url.includes("path="));
    expect(asked()).toEqual([]);
    // A path into a cut part fetches the branch.
    const deep = '["__libc_start_main_impl","__libc_start_call_main","Py_RunMain","_PyFunction_Vectorcall"]';
    await page.goto(`${opened().server.url}/?tz=utc&zoom=${encodeURIComponent(deep)}`);
    await waitForGraph(page);
    await page.locator(".flame-canvas").focus();
    // Move to a cut box, then press Enter.
    const live = page.locator(".flame [aria-live]");
    let steps = 0;
    for (; steps < 60; steps += 1) {
      const text = (await live.textContent())!;
      if (text.includes("smaller functions")) break;
      await page.keyboard.press(steps % 3 === 2 ? "ArrowRight" : "ArrowDown");
      await nextFrames(page);
    }
    expect(await live.textContent()).toContain("smaller functions");
    const cutBefore = await hatched();
    await page.keyboard.press("Enter");
    await expect.poll(() => asked().length).toBeGreaterThan(0);
    await expect.poll(hatched).toBeLessThan(cutBefore);
  });
});
