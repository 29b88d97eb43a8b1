// Generation with a cache: the prompt in one call, then a token at a time.

import { Cache } from "./model.js";
import { draw, probabilities, random } from "./sampling.js";

/** @typedef {{id: number, probability: number, logits: Float32Array, stopped: boolean}} Step */

/**
 * @param {import("./model.js").Model} model
 * @param {number[]} ids the prompt
 * @param {{count?: number, temperature?: number, topK?: number, topP?: number, seed?: number,
 *   stop?: number[], trace?: import("./trace.js").Trace}} [options] count: the most new tokens;
 *   stop: ids that end the text
 * @returns {Generator<Step>}
 */
export function* generate(model, ids, options = {}) {
  const { count = 64, temperature = 0, topK = 0, topP = 1, seed = 0, stop = [], trace } = options;
  const room = Math.min(ids.length + count, model.config.longest);
  const cache = new Cache(model.config, room), next = random(seed);
  let fresh = ids;
  for (let made = 0; made < count && cache.length + fresh.length <= room; made++) {
    const logits = model.forward(fresh, { cache, last: true, trace });
    const chances = probabilities(logits, { temperature, topK, topP });
    const id = draw(chances, next());
    const stopped = stop.includes(id);
    yield { id, probability: probabilities(logits)[id], logits, stopped };
    if (stopped) return;
    fresh = [id];
  }
}
