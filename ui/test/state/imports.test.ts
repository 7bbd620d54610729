// The import rule of eslint.config.js: refused and accepted imports.
import { ESLint } from "eslint";
import { describe, expect, it } from "vitest";

const lint = new ESLint();

async function listRules(filePath: string, text: string): Promise<(string | null)[]> {
  const [result] = await lint.lintText(text, { filePath });
  return result!.messages.map((message) => message.ruleId).filter((rule) => rule?.includes("restricted"));
}

describe("the import rule", () => {
  it.each([
    ["src/views/x.tsx", 'import { fetchNodes } from "../api/routes.ts";\nfetchNodes({});\n'],
    ["src/views/x.tsx", 'import { fetchNodes, type Selection } from "../api/routes.ts";\nexport const x = (s: Selection) => fetchNodes(s);\n'],
    ["src/views/x.tsx", 'export { fetchNodes } from "../api/routes.ts";\n'],
    ["src/main.tsx", 'import { fetchNodes } from "./api/routes.ts";\nfetchNodes({});\n'],
    ["src/views/x.tsx", 'void fetch("/api/v1/nodes");\n'],
    ["src/state/x.ts", 'void fetch("/api/v1/nodes");\n'],
    ["src/api/x.ts", 'import { createStore } from "../state/store.ts";\ncreateStore({});\n'],
  ])("refuses in %s: %s", async (filePath, text) => {
    expect(await listRules(filePath, text)).toHaveLength(1);
  });

  it.each([
    ["src/views/x.tsx", 'import type { Selection } from "../api/routes.ts";\nexport type X = Selection;\n'],
    ["src/state/x.ts", 'import { fetchNodes } from "../api/routes.ts";\nexport const x = fetchNodes;\n'],
  ])("lets pass in %s: %s", async (filePath, text) => {
    expect(await listRules(filePath, text)).toEqual([]);
  });
});
