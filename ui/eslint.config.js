// The import rule of the page: lib <- api, state <- views. `lib` knows no
// browser and no framework, `views` never fetch.
import tseslint from "typescript-eslint";

/** Forbids imports from the given folders of src/. */
function never(folders, reason) {
  return {
    "no-restricted-imports": ["error", {
      patterns: folders.map((folder) => ({ regex: `^(\\.\\./)+${folder}/|^${folder}$`, message: reason })),
    }],
  };
}

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
  { files: ["src/state/**"], rules: never(["views", "uplot"], "state/ imports lib/ and api/ only") },
  {
    files: ["src/views/**"],
    rules: { "no-restricted-globals": ["error", { name: "fetch", message: "views ask state/, state asks api/" }] },
  },
  { files: ["test/**"], rules: { "no-console": "off", "max-lines-per-function": "off" } },
);
