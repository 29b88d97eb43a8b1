// From logits to the next token: greedy, or drawn with temperature, top-k and top-p.

import { argmax, softmaxInPlace } from "./ops.js";

/**
 * The probabilities from which a token is drawn.
 * @param {Float32Array} logits (V)
 * @param {{temperature?: number, topK?: number, topP?: number}} [options] temperature 0: all of
 *   the probability on the most likely token; topK: 0 keeps all; topP: 1 keeps all
 * @returns {Float32Array} (V), sum 1
 */
export function probabilities(logits, { temperature = 1, topK = 0, topP = 1 } = {}) {
  if (!(temperature >= 0)) throw new Error(`The temperature is ${temperature}; it must be 0 or more.`);
  if (!(topP > 0 && topP <= 1)) throw new Error(`topP is ${topP}; it must be above 0 and at most 1.`);
  if (!(Number.isInteger(topK) && topK >= 0)) throw new Error(`topK is ${topK}; it must be an integer, 0 or more.`);
  if (temperature === 0) {
    const one = new Float32Array(logits.length);
    one[argmax(logits)] = 1;
    return one;
  }
  const values = logits.map((value) => value / temperature);
  if (topK && topK < values.length) {
    const least = Float32Array.from(values).sort()[values.length - topK];
    values.forEach((value, i) => { if (value < least) values[i] = -Infinity; });
  }
  softmaxInPlace(values, 0, values.length);
  if (topP < 1) keepTop(values, topP);
  return values;
}

/**
 * Keep the fewest most likely tokens whose probabilities reach p (Holtzman et al. 2020), in place.
 * @param {Float32Array} values
 * @param {number} p
 */
function keepTop(values, p) {
  const order = Array.from(values.keys()).sort((a, b) => values[b] - values[a] || a - b);
  const kept = new Set();
  let total = 0;
  for (const i of order) {
    if (total >= p) break;
    kept.add(i);
    total += values[i];
  }
  values.forEach((value, i) => { values[i] = kept.has(i) ? value / total : 0; });
}

/**
 * Draw from probabilities.
 * @param {Float32Array} values (V), sum 1
 * @param {number} number uniform in [0, 1)
 */
export function draw(values, number) {
  let sum = 0, last = 0;
  for (let i = 0; i < values.length; i++) {
    if (values[i] > 0) last = i;
    sum += values[i];
    if (number < sum) return i;
  }
  return last; // rounding left a gap
}

/**
 * Random numbers in [0, 1) from a seed: mulberry32, which every machine computes alike.
 * @param {number} seed
 * @returns {() => number}
 */
export function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
