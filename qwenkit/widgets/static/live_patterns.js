// The attention of every head on one text, as _patterns.py has it: a byte per weight, and scores.

import { Trace } from "./engine/trace.js";
import { deflate, tokenStrings } from "./live.js";

/** @import { Engine, PatternsRead } from "./types.d.ts" */

const PREVIOUS = "previous-token head", FIRST = "first-token head", CURRENT = "current-token head";
const INDUCTION = "induction head";
const FAR = "far"; // attention to neither the first, the previous nor the current token

/**
 * @param {Engine} engine
 * @param {number[]} ids
 * @param {number} largest positions a side; a longer text is pooled
 * @param {Trace} [trace] records more of the same forward pass
 * @returns {Promise<PatternsRead>}
 */
export async function livePatterns({ net, tokenizer }, ids, largest, trace = new Trace({ keep: [] })) {
  const { layers, heads } = net.config, length = ids.length, factor = Math.ceil(length / largest);
  const size = Math.ceil(length / factor), area = size * (size + 1) / 2;
  const weights = new Uint8Array(layers * heads * area);
  const copies = inductionRows(ids);
  /** @type {Map<string, number[]>} */
  const scores = new Map();
  const note = (/** @type {string} */ name, /** @type {number} */ score) => {
    scores.set(name, [...(scores.get(name) ?? []), score]);
  };
  const tokens = tokenStrings(tokenizer, ids); // bytes, as \xa0, are no letters
  const wordless = tokens.map((one) => !/[\p{L}\p{N}]/u.test(one.replace(/\\x[0-9a-f]{2}/g, "")));
  /** @type {Map<string, number[]>} */
  const examples = new Map(); // of each type, the token that shows it best in each head
  for (let layer = 0; layer < layers; layer++) {
    trace.edits.set(`layers.${layer}.attn.pattern`, (pattern) => {
      for (let head = 0; head < heads; head++) {
        const one = pattern.subarray(head * length * length, (head + 1) * length * length);
        const at = (layer * heads + head) * area;
        pool(one, length, factor, size).forEach((weight, i) => { weights[at + i] = weight; });
        scoreHead(one, length, copies, note);
        for (const [name, rows] of rowsOf(one, length, copies))
          examples.set(name, [...(examples.get(name) ?? []), exampleOf(rows, wordless)]);
      }
      return pattern;
    });
  }
  net.forward(ids, { trace, last: true });
  const evenly = copies.map(([t, targets]) => targets.length / (t + 1));
  const even = evenly.reduce((sum, one) => sum + one, 0) / (copies.length || 1);
  const titles = Array.from({ length: layers }, (_, layer) => Array.from({ length: heads }, (_, head) =>
    titleOf(scores, layer, head, layer * heads + head, even)));
  const exampleAt = (/** @type {string} */ name, /** @type {number} */ at) => {
    const found = examples.get(name);
    return found ? Math.floor(found[at] / factor) : size - 1;
  };
  return { layers, heads, tokens, factor, scores, titles, exampleAt,
    weights: await deflate(weights) };
}

/**
 * The queries whose token came before, each with the keys that followed its earlier copies.
 * @param {number[]} ids
 * @returns {[number, number[]][]}
 */
function inductionRows(ids) {
  return ids.map((id, t) => /** @type {[number, number[]]} */ (
    [t, Array.from({ length: t }, (_, s) => s).filter((s) => s > 0 && ids[s - 1] === id)]))
    .filter(([, targets]) => targets.length);
}

/**
 * The lower triangle of a pattern (T, T) in steps of a 255th, pooled by the largest weight.
 * @param {Float32Array} pattern
 * @param {number} length
 * @param {number} factor
 * @param {number} size
 */
function pool(pattern, length, factor, size) {
  const small = new Float32Array(size * (size + 1) / 2);
  for (let t = 0; t < length; t++) {
    const row = Math.floor(t / factor), start = row * (row + 1) / 2;
    for (let s = 0; s <= t; s++) {
      const i = start + Math.floor(s / factor);
      small[i] = Math.max(small[i], pattern[t * length + s]);
    }
  }
  return small.map((weight) => Math.round(weight * 255));
}

/**
 * @param {Float32Array} pattern (T, T)
 * @param {number} length
 * @param {[number, number[]][]} copies
 * @param {(name: string, score: number) => void} note
 */
function scoreHead(pattern, length, copies, note) {
  if (length > 1) {
    const mean = (/** @type {(t: number) => number} */ column) => {
      let sum = 0;
      for (let t = 1; t < length; t++) sum += pattern[t * length + column(t)];
      return sum / (length - 1);
    };
    note(PREVIOUS, mean((t) => t - 1));
    note(FIRST, mean(() => 0));
    note(CURRENT, mean((t) => t));
  }
  if (!copies.length) return;
  let sum = 0;
  for (const [t, targets] of copies) for (const s of targets) sum += pattern[t * length + s];
  note(INDUCTION, sum / copies.length);
}

/**
 * How much each query attends as a type does, or far, in steps of a 255th; -1: it cannot.
 * @param {Float32Array} pattern (T, T)
 * @param {number} length
 * @param {[number, number[]][]} copies
 */
function rowsOf(pattern, length, copies) {
  const weight = (/** @type {number} */ t, /** @type {number} */ s) => pattern[t * length + s];
  const rows = (/** @type {number} */ first, /** @type {(t: number) => number} */ of) =>
    Array.from({ length }, (_, t) => t < first ? -1 : Math.round(255 * of(t)));
  /** @type {Map<string, number[]>} */
  const found = new Map();
  if (length > 1) {
    found.set(PREVIOUS, rows(length > 2 ? 2 : 1, (t) => weight(t, t - 1)));
    found.set(FIRST, rows(1, (t) => weight(t, 0)));
    found.set(CURRENT, rows(1, (t) => weight(t, t)));
  }
  if (copies.length) {
    const targets = new Map(copies);
    found.set(INDUCTION, rows(0, (t) => targets.get(t)?.reduce((sum, s) => sum + weight(t, s), 0) ?? -1));
  }
  if (length > 3) {
    found.set(FAR, rows(3, (t) => {
      let most = 0;
      for (let s = 1; s < t - 1; s++) most = Math.max(most, weight(t, s));
      return most;
    }));
  }
  return found;
}

/**
 * The last query with the most, one with letters or digits if it can be.
 * @param {number[]} rows
 * @param {boolean[]} wordless
 */
function exampleOf(rows, wordless) {
  const readable = rows.map((one, t) => wordless[t] ? -1 : one), most = Math.max(...readable);
  return most > 0 ? readable.lastIndexOf(most) : rows.lastIndexOf(Math.max(...rows));
}

/** The token at which a head attends to one far away. */
export function farToken(/** @type {PatternsRead} */ { heads, exampleAt },
  /** @type {{layer: number, head: number}} */ { layer, head }) {
  return exampleAt(FAR, layer * heads + head);
}

/**
 * @param {Map<string, number[]>} scores
 * @param {number} layer
 * @param {number} head
 * @param {number} at
 * @param {number} even
 */
function titleOf(scores, layer, head, at, even) {
  const part = (/** @type {number} */ one) => `${(100 * one).toFixed(0)}%`;
  const parts = [...scores].map(([name, all]) =>
    `${name.replace(/ head$/, "").replaceAll("-", " ")} ${part(all[at])}`);
  if (scores.has(INDUCTION)) parts.push(`${parts.pop()} (evenly spread: ${part(even)})`);
  return `Layer ${layer}, head ${head}: ${parts.join(", ") || "the only token attends to itself"}`;
}

/** Type, layer, head and token of each type's strongest head. */
export function strongestHeads(/** @type {PatternsRead} */ { scores, heads, exampleAt }) {
  return [...scores].filter(([name]) => name !== CURRENT).map(([name, all]) => {
    const at = all.indexOf(Math.max(...all));
    return /** @type {[string, number, number, number]} */ (
      [name, Math.floor(at / heads), at % heads, exampleAt(name, at)]);
  });
}

export const hasInduction = (/** @type {PatternsRead} */ { scores }) => scores.has(INDUCTION);
