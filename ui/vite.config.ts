// Builds the page to dist/, which the server embeds; runs the tests; and, with
// `npm run dev`, serves it over the fixture data or over a real server
// (PILOTLIGHT_SERVER=http://127.0.0.1:7070).
import { defineConfig } from "vitest/config";
import type { Plugin } from "vite";
import { createFixtureHandler } from "./test/fixture/handler.ts";

const realServer = process.env["PILOTLIGHT_SERVER"];

/** Answers /api/ from generated data when no real server is named. */
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
  build: {
    target: "es2022",
    // No data: addresses, so that `default-src 'self'` is all the policy needed.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
  server: realServer ? { proxy: { "/api": realServer } } : {},
  preview: realServer ? { proxy: { "/api": realServer } } : {},
  test: {
    // More than a small machine has cores: the browser tests, a browser to each file, mostly wait.
    maxWorkers: 3,
    projects: [
      { test: { name: "unit", include: ["test/{lib,api,state}/**/*.test.ts"], testTimeout: 120_000 } },
      {
        test: {
          name: "browser",
          include: ["test/browser/**/*.test.ts"],
          // A test takes 1 to 3 s on an idle machine; a busy one must not make it fail.
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
