// What the tests share: the scripts as node reads them, and numbers that are nearly the same.

import assert from "node:assert/strict";

const STATIC = new URL("../../qwenkit/widgets/static/", import.meta.url);

// `source` in _base.py defines the color maps in front of a bundle; here color i is the gray i.
const grays = Array.from({ length: 256 }, (_, i) => i.toString(16).padStart(2, "0").repeat(3)).join("");
globalThis.MAPS = { viridis: grays, RdBu_r: grays, cividis: grays };

export const load = (name) => import(new URL(name, STATIC));

// All numbers of a list, or of lists of lists, within a tolerance.
export function near(found, wanted, tolerance = 1e-12) {
  const flat = (value) => typeof value === "number" ? [value] : Array.from(value).flatMap(flat);
  const [one, other] = [flat(found), flat(wanted)];
  const same = one.length === other.length
    && one.every((value, i) => Object.is(value, other[i]) || Math.abs(value - other[i]) <= tolerance);
  assert.ok(same, `[${one}] is not [${other}]`);
}
