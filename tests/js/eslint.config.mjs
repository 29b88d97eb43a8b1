// Run from the root of the repository: eslint --config tests/js/eslint.config.mjs FOLDERS

import js from "@eslint/js";
import globals from "globals";

// `source` in qwenkit/widgets/_base.py joins a script and what it imports; it knows only
// `import { a, b } from "./x.js";` and `export` in front of a function, class or const.
const BUNDLED = [
  ["ExportDefaultDeclaration", "export by name"],
  ["ExportAllDeclaration", "import from the script itself"],
  ["ExportNamedDeclaration[declaration=null]", "write export in front of the declaration"],
  ["ExportNamedDeclaration > VariableDeclaration[kind!='const']", "export a const"],
  ["ImportDefaultSpecifier", "import by name"],
  ["ImportNamespaceSpecifier", "import by name"],
].map(([selector, message]) => ({ selector, message }));

export default [
  { ignores: ["**/node_modules/"] },
  js.configs.recommended,
  {
    linterOptions: { reportUnusedDisableDirectives: "error" },
    rules: {
      eqeqeq: "error",
      "no-implicit-coercion": "error",
      "no-unused-vars": ["error", { argsIgnorePattern: "^_", varsIgnorePattern: "^_" }],
      "no-use-before-define": ["error", { functions: false, classes: false, variables: false }],
      "no-var": "error",
      "object-shorthand": "error",
      "prefer-const": "error",
      "prefer-template": "off", // long texts are joined by +
    },
  },
  {
    files: ["qwenkit/**/*.js"],
    languageOptions: { globals: { ...globals.browser, MAPS: "readonly" } },
    rules: { "no-restricted-syntax": ["error", ...BUNDLED] },
  },
  {
    files: ["**/*.mjs"],
    languageOptions: { globals: globals.node },
  },
];
