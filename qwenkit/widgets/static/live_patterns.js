// The attention of every head on one text, as _patterns.py has it: a byte per weight, and scores.

import { Trace } from "./engine/trace.js";
import { deflate, tokenStrings } from "./live.js";

/** @import { Engine, PatternsRead } from "./types.d.ts" */

const PREVIOUS = "previous-token head", FIRST = "first-token head", CURRENT = "current-token head";
const INDUCTION = "induction head";

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
  for (let layer = 0; layer < layers; layer++) {
    trace.edits.set(`layers.${layer}.attn.pattern`, (pattern) => {
      for (let head = 0; head < heads; head++) {
        const one = pattern.subarray(head * length * length, (head + 1) * length * length);
        const at = (layer * heads + head) * area;
        pool(one, length, factor, size).forEach((weight, i) => { weights[at + i] = weight; });
        scoreHead(one, length, copies, note);
      }
      return pattern;
    });
  }
  net.forward(ids, { trace, last: true });
  const evenly = copies.map(([t, targets]) => targets.length / (t + 1));
  const even = evenly.reduce((sum, one) => sum + one, 0) / (copies.length || 1);
  const titles = Array.from({ length: layers }, (_, layer) => Array.from({ length: heads }, (_, head) =>
    titleOf(scores, layer, head, layer * heads + head, even)));
  return { layers, heads, tokens: tokenStrings(tokenizer, ids), factor, scores, titles,
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

/** Type, layer and head of each type's strongest head. */
export function strongestHeads(/** @type {PatternsRead} */ { scores, heads }) {
  return [...scores].filter(([name]) => name !== CURRENT).map(([name, all]) => {
    const at = all.indexOf(Math.max(...all));
    return /** @type {[string, number, number]} */ ([name, Math.floor(at / heads), at % heads]);
  });
}

export const hasInduction = (/** @type {PatternsRead} */ { scores }) => scores.has(INDUCTION);
