// Leaves out of package-lock.json whom to pay for a package: the file then holds no address at all.

import { readFileSync, writeFileSync } from "node:fs";

const path = new URL("package-lock.json", import.meta.url);
const lock = JSON.parse(readFileSync(path, "utf8"), (key, value) => key === "funding" ? undefined : value);
writeFileSync(path, `${JSON.stringify(lock, null, 2)}\n`);
