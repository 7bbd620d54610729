// Builds the page into dist/, which the server embeds; runs the tests; `npm run dev` serves the
// page with fixture data, or with the data of a real server
// (PILOTLIGHT_SERVER=http://127.0.0.1:7070).
import { defineConfig } from "vitest/config";
import type { Plugin } from "vite";
import { createFixtureHandler } from "./test/fixture/handler.ts";

const realServer = process.env["PILOTLIGHT_SERVER"];

/** Answers /api/ with generated data, unless a real server is set. */
function fixtureApi(): Plugin {
  return {
    name: "pilotlight-fixture-api",
    configureServer(server) {
      if (realServer) return;
      const handle = createFixtureHandler();
      server.middlewares.use((request, response, next) => {
        if (!handle(request, response)) next();
      });
    },
  };
}

export default defineConfig({
  plugins: [fixtureApi()],
  // Relative URLs: the page may be below a path prefix (the server's --path-prefix).
  base: "./",
  build: {
    target: "es2022",
    // Inline no data: URLs, so that the policy `default-src 'self'` suffices.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
  server: realServer ? { proxy: { "/api": realServer } } : {},
  preview: realServer ? { proxy: { "/api": realServer } } : {},
  test: {
    // More than the cores of a small machine: each browser test file has its own browser and mostly
    // waits.
    maxWorkers: 3,
    projects: [
      { test: { name: "unit", include: ["test/{lib,api,state}/**/*.test.ts"], testTimeout: 120_000 } },
      {
        test: {
          name: "browser",
          include: ["test/browser/**/*.test.ts"],
          // A test takes 1 to 3 s on an idle machine, but must also pass on a busy one.
          testTimeout: 120_000,
          hookTimeout: 60_000,
          expect: { poll: { timeout: 20_000 } },
        },
      },
      {
        test: {
          name: "bench",
          include: ["test/bench/**/*.bench.ts"],
          testTimeout: 300_000,
          hookTimeout: 60_000,
        },
      },
    ],
  },
});
