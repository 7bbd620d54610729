// The page's import rule: lib <- api <- state <- views. `lib` uses neither the browser nor the
// framework; only `api` sends requests, and only `state` calls it.
import tseslint from "typescript-eslint";

/** Forbids imports from the given folders of src/. */
function never(folders, reason) {
  return {
    "no-restricted-imports": ["error", {
      patterns: folders.map((folder) => ({ regex: `^(\\.\\./)+${folder}/|^${folder}$`, message: reason })),
    }],
  };
}

/** Outside of state/, only types may be imported from api/. */
const typesOfApi = {
  "@typescript-eslint/no-restricted-imports": ["error", {
    patterns: [{ regex: "^\\.{1,2}/(.*/)?api/", allowTypeImports: true, message: "only state/ asks api/; views import its types" }],
  }],
};

const noFetch = { "no-restricted-globals": ["error", ...["fetch", "XMLHttpRequest", "EventSource", "WebSocket"].map((name) => ({ name, message: "only api/ sends requests; ask state/" }))] };

export default tseslint.config(
  { ignores: ["dist/", "node_modules/", "test/shots/"] },
  ...tseslint.configs.recommended,
  {
    rules: {
      eqeqeq: "error",
      "no-console": "error",
      "max-params": ["error", 4],
      "max-lines-per-function": ["warn", { max: 120, skipComments: true, skipBlankLines: true }],
      "@typescript-eslint/no-non-null-assertion": "off",
      "@typescript-eslint/consistent-type-imports": "error",
    },
  },
  {
    files: ["src/lib/**"],
    rules: {
      ...never(["api", "state", "views", "preact", "uplot"], "lib/ is pure: it imports nothing but lib/"),
      "no-restricted-globals": ["error", "window", "document", "fetch", "localStorage", "location", "history", "navigator"],
    },
  },
  { files: ["src/api/**"], rules: never(["state", "views", "preact", "uplot"], "api/ imports lib/ only") },
  { files: ["src/state/**"], rules: { ...never(["views", "uplot"], "state/ imports lib/ and api/ only"), ...noFetch } },
  { files: ["src/views/**", "src/*.{ts,tsx}"], rules: { ...typesOfApi, ...noFetch } },
  { files: ["test/**"], rules: { "no-console": "off", "max-lines-per-function": "off" } },
);
